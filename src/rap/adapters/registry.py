"""The methods by name: NAME is rap/adapters/NAME.py, imported when it is asked for and not before.

So a run depends on the source code of its own method, and importing this file does not import torch.
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

SHARED = {"base", "layers", "registry"}  # files of the folder that are not methods


@dataclass(frozen=True)
class Method:
    """A registered method: its builder, its option groups by name, and one line that names it and its authors."""

    name: str
    build: "Callable[..., Adapter]"
    groups: dict[str, type[Section]]
    about: str
    identity: bool  # whether it leaves CLIP unchanged at step 0


_methods: dict[str, Method] = {}


def register(name: str, identity: bool = True, **groups: type[Section]) -> Callable:
    """Register a builder `(clip, frames, **groups) -> Adapter`, in the file NAME.py.

    The first line of the builder's docstring describes the method. Raises ValueError in another file.
    """

    def add(build: "Callable[..., Adapter]") -> "Callable[..., Adapter]":
        if build.__module__.rpartition(".")[2] != name:
            raise ValueError(f"adapter {name!r} is registered in {build.__module__}; register it in {name}.py")
        _methods[name] = Method(name, build, groups, (build.__doc__ or "").strip().splitlines()[0], identity)
        return build

    return add


def names() -> list[str]:
    """The names of all methods, in alphabetical order. Imports none."""
    return sorted(found.name for found in iter_modules(rap.adapters.__path__) if found.name not in SHARED)


def method(name: str) -> Method:
    """A method by its name. Raises KeyError if its file registers none."""
    import_module(f"{rap.adapters.__name__}.{name}")
    return _methods[name]


def methods() -> dict[str, Method]:
    """All methods by name."""
    return {name: method(name) for name in names()}


def options(params: Params, variant: str) -> dict[str, Section]:
    """The validated option groups of a variant. Raises UserError with the path of the first mistake."""
    chosen, where = params.variant(variant), f"params.yaml: {params.path(variant)}"
    if chosen.adapter not in names():
        raise UserError(f"{where}.adapter: no method {chosen.adapter!r}{hint(chosen.adapter, names())}")
    groups = method(chosen.adapter).groups
    for key in chosen.options:
        if key not in groups:
            raise UserError(f"{where}.{key}: unknown key{hint(key, ['adapter', 'label', 'train', *groups])}")
    return {key: parse(model, chosen.options.get(key, {}), f"{where}.{key}") for key, model in groups.items()}


def build(clip: "Clip", params: Params, variant: str) -> "Adapter":
    """The fresh adapter of a variant, for a backbone. Random initialisation uses torch's global random state."""
    return method(params.variant(variant).adapter).build(clip, params.frames.count, **options(params, variant))


def check(params: Params) -> None:
    """Validate the options of every variant. Raises UserError."""
    for variant in params.all_variants:
        options(params, variant)
