"""A CLIP of any family of open_clip, used whole: from pixels or words to embeddings, by open_clip's own code.

It has no blocks that an adapter could change. Its towers have two positions: INPUT, and 0, the embeddings in the joint
space. The edits of the head, at the sites ln_post and joint, apply to these embeddings.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from rap.clip.hub import reachable_or_offline
from rap.clip.towers import INPUT, Block, Clip, Context, TextTower, Tower, Tuner, VideoTower
from rap.errors import UserError, require

KIND = "whole"  # the entry `kind` of a backbone's config


class WholeTower(Tower):
    """`model`: open_clip's, shared by both towers. `whole`: the message that it has no blocks, and which models do."""

    def __init__(self, model: nn.Module, width: int, whole: str):
        super().__init__()
        self.model, self.whole = model, whole
        self.width = self.pooled_width = width

    @property
    def blocks(self) -> list[Block]:
        return []

    @property
    def all(self) -> int:
        return 0

    def run(self, x: Tensor, start: int, stop: int, context: Context, tuner: Tuner) -> Tensor:
        x = self.embed(x) if start == INPUT else x
        h = tuner.edit(0, "ln_post", x, None, context)
        return tuner.edit(0, "joint", h, h, context)

    def pooled(self, x: Tensor) -> Tensor:
        return x

    def joint(self, h: Tensor) -> Tensor:
        return h


class WholeVideo(WholeTower, VideoTower):
    grid = 0

    def __init__(self, model: nn.Module, width: int, whole: str, preprocess: dict):
        super().__init__(model, width, whole)
        self.size = preprocess["size"]
        self.set_normalisation(preprocess)

    def embed(self, x: Tensor) -> Tensor:
        return cast(Any, self.model).encode_image(self.normalised(x), normalize=False).unflatten(0, x.shape[:2])


class WholeText(WholeTower, TextTower):
    def embed(self, x: Tensor) -> Tensor:
        return cast(Any, self.model).encode_text(x.long(), normalize=False)


class Whole(Clip):
    """The model of a config.json whose kind is `whole`, with random weights."""

    def __init__(self, config: dict):
        super().__init__()
        model = open_clip_model(config["name"], config["model"])
        self.embed_dim = config["model"]["embed_dim"]
        self.visual = WholeVideo(model, self.embed_dim, config["whole"], config["preprocess"])
        self.text = WholeText(model, self.embed_dim, config["whole"])
        self.logit_scale = cast(nn.Parameter, model.logit_scale)
        self.logit_bias = cast(nn.Parameter | None, getattr(model, "logit_bias", None))

    @property
    def weights(self) -> nn.Module:
        return cast(WholeVideo, self.visual).model


def open_clip_model(name: str, model: dict) -> nn.Module:
    """open_clip's model, with random weights. Raises UserError if it needs a package or a file that is missing."""
    import open_clip

    if "hf_model_name" in model["text_cfg"]:
        require("transformers", "hub")
    try:
        with _quiet(), reachable_or_offline() if "hf_model_name" in model["text_cfg"] else nullcontext():
            return open_clip.create_model(
                name,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=model.get("quick_gelu", False),
                device=torch.get_default_device(),
            )
    except OSError as error:  # the config of a text tower is on the hub
        raise UserError(
            f"backbone.name: {name}: its text tower {model['text_cfg'].get('hf_model_name')} is not in the hub's cache "
            f"and the hub cannot be reached ({' '.join(str(error).split())[:100]})"
        ) from None


def converted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of other projects and of older versions under the names of `model`, as open_clip does it.

    Unlike open_clip, weights for another picture size or text length keep their shape, so that they are refused.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(own["logit_bias"])
    state.pop("text.transformer.embeddings.position_ids", None)
    return state


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence open_clip's logs, and its warning that weights are random, which is intended."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
