"""CoOp: learnt word embeddings before the caption."""

from typing import cast

import torch
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, TextTower, Tuner
from rap.errors import UserError
from rap.params import Count, Section


class Options(Section):
    words: Count = 4


class Words(Tuner):
    """Inserts learnt tokens after the start token; the caption's words use the following positional embeddings."""

    first_block = 0

    def __init__(self, tower: TextTower, count: int):
        super().__init__()
        self.words = nn.Parameter(0.02 * torch.randn(count, tower.width))

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        if (layer, site) != (0, "input"):
            return x
        place, count = cast(TextTower, context.tower).positional_embedding, len(self.words)
        longest = x.shape[1] + count
        if longest > len(place):
            raise UserError(
                f"coop.words: {count} words and captions of {x.shape[1]} exceed the text tower's {len(place)} "
                "positions; lower coop.words or features.max_words"
            )
        context.length = context.length + count
        learnt = (self.words + place[1 : count + 1]).expand(len(x), -1, -1)
        moved = x[:, 1:] - place[1 : x.shape[1]] + place[count + 1 : longest]
        return torch.cat([x[:, :1], learnt, moved], dim=1)


@register("coop", identity=False, coop=Options)
def build(clip: Clip, frames: int, coop: Options) -> Adapter:
    """Learnt context words before every caption (CoOp, Zhou et al. 2022)

    Raises UserError for a text tower that reads all of its positions, such as SigLIP's, and so has no free position.
    Parameters: D_t per word.
    """
    if clip.text.words:
        raise UserError(
            f"params.yaml: coop inserts words, and this text tower always reads {clip.text.words} and has no place for "
            "more; leave the variant out of `run`"
        )
    return Adapter(text=Words(clip.text, coop.words))
