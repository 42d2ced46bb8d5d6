"""Methods, one per file. To add one, add a file: it registers a builder, and every stage and test knows it.

A method is an Adapter: a Tuner for each tower (see rap.clip.towers), made by a builder from the backbone and the
method's option groups. The groups are pydantic models, so params.yaml is validated by the method itself.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rap.clip.towers import Clip, Tuner
from rap.errors import UserError
from rap.params import Params, Section, hint, parse


class Head(nn.Module):
    """What a method does with frame embeddings [B, T, E] of clips with `length` [B] frames. This one: nothing."""

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        return x


class Adapter(nn.Module):
    """What a method trains: edits of the towers, a `head` on the frame embeddings, or a `clip` of its own instead."""

    def __init__(
        self,
        video: Tuner | None = None,
        text: Tuner | None = None,
        clip: Clip | None = None,
        head: Head | None = None,
    ):
        super().__init__()
        self.video, self.text, self.clip, self.head = video or Tuner(), text or Tuner(), clip, head or Head()

    @property
    def count(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class Stack(Tuner):
    """Several tuners in one tower, applied in their order at every site."""

    def __init__(self, *tuners: Tuner):
        super().__init__()
        self.tuners = nn.ModuleList(tuners)
        self.first_block = min((t.first_block for t in tuners), default=math.inf)
        self.conditioned = min((t.conditioned for t in tuners), default=math.inf)

    def block(self, layer, block):
        for tuner in self.tuners:
            block = tuner.block(layer, block)
        return block

    def edit(self, layer, site, x, source, context):
        for tuner in self.tuners:
            x = tuner.edit(layer, site, x, source, context)
        return x

    def prompts(self, layer, context):
        found = [p for p in (tuner.prompts(layer, context) for tuner in self.tuners) if p is not None]
        return torch.cat(found, dim=-2) if found else None

    def attend(self, layer, block, x, q, attended, context):
        for tuner in self.tuners:
            attended = tuner.attend(layer, block, x, q, attended, context)
        return attended


@dataclass(frozen=True)
class Method:
    """A registered method: its builder, its option groups by name, and one line on what it is and whose."""

    name: str
    build: Callable[..., Adapter]
    groups: dict[str, type[Section]]
    about: str
    identity: bool  # whether it leaves CLIP as it is at step 0


METHODS: dict[str, Method] = {}


def register(name: str, identity: bool = True, **groups: type[Section]) -> Callable:
    """Register a builder `(clip, frames, **groups) -> Adapter`; its docstring's first line says what it is."""

    def add(build: Callable[..., Adapter]) -> Callable[..., Adapter]:
        if name in METHODS:
            raise ValueError(f"adapter {name!r} is registered twice")
        METHODS[name] = Method(name, build, groups, (build.__doc__ or "").strip().splitlines()[0], identity)
        return build

    return add


def options(params: Params, name: str) -> dict[str, Section]:
    """The validated option groups of a variant. Raises UserError with the path of what is wrong."""
    variant, where = params.all_variants[name], f"params.yaml: {params.path(name)}"
    if variant.adapter not in METHODS:
        raise UserError(f"{where}.adapter: no method {variant.adapter!r}{hint(variant.adapter, METHODS)}")
    groups = METHODS[variant.adapter].groups
    for key in variant.options:
        if key not in groups:
            raise UserError(f"{where}.{key}: unknown key{hint(key, ['adapter', 'label', 'train', *groups])}")
    return {key: parse(model, variant.options.get(key, {}), f"{where}.{key}") for key, model in groups.items()}


def build(clip: Clip, params: Params, name: str) -> Adapter:
    """The adapter of a variant, fresh, for a backbone. Uses torch's random state for what is initialised at random."""
    return METHODS[params.all_variants[name].adapter].build(clip, params.frames.count, **options(params, name))


def check(params: Params) -> Params:
    """Validate the options of every variant."""
    for name in params.all_variants:
        options(params, name)
    return params


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
