"""`rap dataset use`: copies the keys of a dataset from NAME.yaml into params.yaml, and keeps comments.

The pipeline reads only params.yaml; a preset holds the few lines that a user would write by hand. A folder without
params.yaml gets that of the project, so an installed package needs no checkout.
"""

from collections.abc import Iterator
from importlib import resources
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter

from rap.adapters import registry
from rap.errors import UserError
from rap.files import write_text
from rap.params import Params, hint, parse
from rap.paths import DVC, PARAMS

FOLDER = resources.files("rap.presets")
BATCH = 32  # clips in a forward pass of ViT-B-32
START = "params"  # the project's own params.yaml; not a preset


class Representer(RoundTripRepresenter):
    """Writes null as `null`: an empty value looks like an omission."""


Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def begin(name: str) -> None:
    """Write the project's params.yaml if the folder has none. Raises UserError for an unknown name."""
    refuse_unknown(name)
    if not PARAMS.exists():
        write_text(PARAMS, _text(START))


def run(params: Params, name: str, backbone: str | None = None) -> str:
    """Write the keys of a preset into params.yaml; return a line per changed key. Raises UserError for an unknown name.

    `backbone`: a model of open_clip instead of the preset's, with the settings that belong to it.
    """
    refuse_unknown(name)
    yaml = YAML()
    yaml.width, yaml.Representer = 1_000, Representer
    yaml.indent(mapping=2, sequence=4, offset=2)  # the layout of params.yaml
    values = yaml.load(PARAMS.read_text(encoding="utf-8"))
    wanted = yaml.load(_text(name))
    gone = [variant for variant in wanted.get("run", []) if variant not in values["variants"]]
    for variant in gone:  # the user removed or renamed it
        wanted["run"].remove(variant)
    if gone and not wanted["run"]:
        del wanted["run"]
    if backbone:
        _suit(wanted, backbone, params)
    changes = list(_merge(values, wanted))
    text = StringIO()
    yaml.dump(values, text)
    new = parse(Params, YAML(typ="safe").load(text.getvalue()), str(PARAMS))
    registry.check(new)
    if new.backbone.file and not new.backbone.file.exists():
        raise UserError(
            f"dataset: {name} needs {new.backbone.file}, which is not here; work in a checkout of the project"
        )
    if changes:
        write_text(PARAMS, text.getvalue())
    about = "; see docs/datasets.md for its files" if DVC.exists() else ""
    return "\n".join([*changes, f"{PARAMS}: {len(changes)} keys changed for {name}{about}"])


def refuse_unknown(name: str) -> None:
    names = known()
    if name not in names:
        raise UserError(f"dataset: no preset named {name!r}{hint(name, names)}")


def known() -> list[str]:
    """The names of the presets."""
    names = (file.name for file in FOLDER.iterdir())
    return sorted({name.removesuffix(".yaml") for name in names if name.endswith(".yaml")} - {START})


def _text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def _suit(wanted: dict, backbone: str, params: Params) -> None:
    """Adapt a preset, which is written for ViT-B-32 and its 12 blocks, to another backbone.

    The weights are those of the backbone's first tag. The features stage takes fewer videos at once for a costlier
    backbone, so that its memory hardly grows. Depths of caches keep their share of the blocks. A model that is used
    whole gets caches of its embeddings, and variants that need blocks do not run. So does a head that pools all tokens
    if the preset caches nothing but its input, which would take a hundred times the space of the embeddings. Families
    that were trained in bfloat16 may exceed float16.
    """
    import open_clip

    from rap.clip.models import known, open_clip_config

    config, tags = open_clip_config(backbone, None), open_clip.list_pretrained_tags_by_model(backbone)
    models = known().set_index("name")
    facts = models.loc[backbone]
    wanted["backbone"] = {"name": backbone, "pretrained": tags[0] if tags else None, "weights": None}
    features = wanted.setdefault("features", {})
    features["batch"] = max(1, round(BATCH * min(1, models.frame["ViT-B-32"] / facts.frame)))
    features["max_words"] = min(features.get("max_words", params.features.max_words), int(facts.words))
    caches, run = features.get("caches", params.features.caches), wanted.get("run", params.run)
    if config.get("kind") and features.get("dtype") == "float16":
        features["dtype"] = "bfloat16"
    if "whole" in config:
        features["caches"] = ["video-all", "text-all"]
        run = [name for name in run if not registry.needs_blocks(params, name)]
        wanted["run"] = [*run, "lorm_head"] if "lorm_head" in params.variants and "lorm_head" not in run else run
        return
    if [cache for cache in caches if cache.startswith("video")] == ["video-12"] and _pools_all(config):
        features["caches"] = ["video-all", *(cache for cache in caches if cache.startswith("text"))]
        wanted["run"] = [name for name in run if params.variants[name].adapter == "none"]
    else:
        features["caches"] = [_at_share(cache, int(facts.blocks)) for cache in caches]


def _pools_all(config: dict) -> bool:
    """Whether the head of a backbone's video tower pools all tokens of a frame, and not one."""
    import torch

    from rap.clip.backbone import CLIPS, Unfilled

    with torch.device("meta"), Unfilled():  # without memory for weights
        return not CLIPS[config.get("kind", "plain")](config).visual.reads_one


def _at_share(cache: str, depth: int) -> str:
    tower, _, place = cache.partition("-")
    return f"video-{round(int(place) / 12 * depth)}" if tower == "video" and place.isdigit() else cache


def _merge(values: dict, wanted: dict, path: str = "") -> Iterator[str]:
    """Set the keys that differ, group by group; yield a description of each change."""
    for key, new in wanted.items():
        old: Any = values.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            yield from _merge(old, new, f"{path}{key}.")
        elif old != new:
            values[key] = new
            yield f"{path}{key}: {_plain(old)} -> {_plain(new)}"


def _plain(value: Any) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, list) else value)
