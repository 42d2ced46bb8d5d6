"""`rap backbones`: the models of open_clip, their costs, and the weights on this machine."""

from tabulate import tabulate

from rap.clip import weights
from rap.clip.models import known
from rap.params import Params

HEAD = {
    "name": "model",
    "level": "level",
    "parameters": "M params",
    "embedding": "embedding",
    "pixels": "pixels",
    "blocks": "blocks",
    "tokens": "tokens",
    "frame": "GFLOPs/frame",
    "caption": "GFLOPs/caption",
    "tags": "tags",
}
SHOWN = 3  # tags of a model


def run(params: Params, tag: str | None, max_gflops: float | None, level: str | None) -> str:
    """One row per model, cheapest frame first; `*` marks tags whose weights are in a local cache.

    A multiply-add counts as two operations. `tag`: only models with a tag that contains this text, and only these tags.
    """
    models = known()
    models["tags"] = models.tags.fillna("").str.split()
    if tag:
        models["tags"] = [[one for one in tags if tag in one] for tags in models.tags]
        models = models[models.tags.astype(bool)]
    if max_gflops is not None:
        models = models[models.frame <= max_gflops]
    if level:
        models = models[models.level == level]
    models = models.sort_values("frame", kind="stable")
    models["tags"] = [_tags(name, tags) for name, tags in zip(models.name, models.tags, strict=True)]
    shown = models[list(HEAD)].astype(object).where(models[list(HEAD)].notna(), "")
    table = tabulate(shown.values.tolist(), headers=list(HEAD.values()), floatfmt=".1f")
    return (
        f"{table}\n\n{len(models)} models. blocks: every method; whole: methods on embeddings (docs/backbones.md). "
        "*: the weights are in a local cache."
    )


def _tags(name: str, tags: list[str]) -> str:
    if not tags:
        return "none"
    marked = sorted((f"{tag}{'*' * weights.is_cached(name, tag)}" for tag in tags), key=lambda tag: "*" not in tag)
    more = f" and {len(marked) - SHOWN} more" if len(marked) > SHOWN else ""
    return ", ".join(marked[:SHOWN]) + more
