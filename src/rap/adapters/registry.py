"""The registry of methods. Method NAME is the file rap/adapters/NAME.py, which is imported on demand.

So a run depends only on the source code of its own method, and importing this module does not import torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import rap.adapters
from rap.errors import UserError
from rap.params import Params, Section, hint, parse

if TYPE_CHECKING:
    from rap.adapters.base import Adapter
    from rap.clip.towers import Clip

SHARED = {"base", "layers", "merge", "registry"}  # files in this folder that are not methods


@dataclass(frozen=True)
class Method:
    """A registered method: its builder, its option groups by name, and a one-line description with its authors."""

    name: str
    build: "Callable[..., Adapter]"
    groups: dict[str, type[Section]]
    about: str
    identity: bool  # whether the method leaves CLIP unchanged at step 0
    blocks: Callable[..., bool]  # whether it needs blocks, from its option groups; if not, any backbone works


_methods: dict[str, Method] = {}


def register(
    name: str, identity: bool = True, blocks: Callable[..., bool] = lambda **_: True, **groups: type[Section]
) -> Callable:
    """Register the builder `(clip, frames, **groups) -> Adapter` of method `name`, in the file NAME.py.

    Every method has the option group `merge` in addition. `identity` and `blocks`: see Method. The first line of the
    builder's docstring describes the method. Raises ValueError if the file has another name.
    """

    def add(build: "Callable[..., Adapter]") -> "Callable[..., Adapter]":
        from rap.adapters import merge as merges  # not at the top: it imports torch, as every method does

        if build.__module__.rpartition(".")[2] != name:
            raise ValueError(f"adapter {name!r} is registered in {build.__module__}; register it in {name}.py")
        about = (build.__doc__ or "").strip().splitlines()[0]

        def whole(clip: "Clip", frames: int, merge: merges.Options, **own: Section) -> "Adapter":
            return merges.merging(build(clip, frames, **own), clip, merge)

        def needs(merge: merges.Options, **own: Section) -> bool:
            return bool(merge.blocks) or blocks(**own)

        _methods[name] = Method(name, whole, {**groups, "merge": merges.Options}, about, identity, needs)
        return build

    return add


def names() -> list[str]:
    """The names of all methods, in alphabetical order. Imports no method."""
    return sorted(found.name for found in iter_modules(rap.adapters.__path__) if found.name not in SHARED)


def method(name: str) -> Method:
    """Import a method by name. Raises ModuleNotFoundError without its file, KeyError if the file registers nothing."""
    import_module(f"{rap.adapters.__name__}.{name}")
    return _methods[name]


def methods() -> dict[str, Method]:
    """All methods by name. Imports all."""
    return {name: method(name) for name in names()}


def options(params: Params, variant: str) -> dict[str, Section]:
    """The validated option groups of a variant. Raises UserError with the path of the first invalid key."""
    chosen, where = params.variant(variant), f"params.yaml: {params.path(variant)}"
    if chosen.adapter not in names():
        raise UserError(f"{where}.adapter: no method {chosen.adapter!r}{hint(chosen.adapter, names())}")
    groups = method(chosen.adapter).groups
    for key in chosen.options:
        if key not in groups:
            raise UserError(f"{where}.{key}: unknown key{hint(key, ['adapter', 'label', 'train', *groups])}")
    return {key: parse(model, chosen.options.get(key, {}), f"{where}.{key}") for key, model in groups.items()}


def build(clip: "Clip", params: Params, variant: str) -> "Adapter":
    """Build the untrained adapter of a variant for a backbone. Initialisation draws from torch's global generator.

    Raises UserError if the method needs blocks and the backbone has none.
    """
    if clip.visual.whole and needs_blocks(params, variant):
        raise UserError(f"params.yaml: {params.path(variant)}: it changes blocks; {clip.visual.whole}")
    return method(params.variant(variant).adapter).build(clip, params.frames.count, **options(params, variant))


def needs_blocks(params: Params, variant: str) -> bool:
    """Whether a variant edits blocks of CLIP; other variants work on the embeddings of any backbone."""
    return method(params.variant(variant).adapter).blocks(**options(params, variant))


def check(params: Params) -> None:
    """Validate the options of every variant. Raises UserError."""
    for variant in params.all_variants:
        options(params, variant)
