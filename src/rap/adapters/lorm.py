"""LoRM: low-rank modulation of the frame features along time (RAP, ACL 2024 Findings).

The paper's public text: a scale and a shift, each from a low-rank decomposition on the temporal dimension, calibrate
the per-image CLIP features. The initialisation, the sites and the text tower's tuner are our reading: see
docs/method.md.
"""

import math
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.layers import Blocks, at_frames, chosen, text_tuner
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tuner, VideoTower
from rap.params import Count, Section

EPSILON = 1e-6  # a clip whose frames are all equal has no salient frame


class Options(Section):
    rank: Count = 8
    decompose: Literal["time", "time_space", "time_layer"] = "time"
    time: Literal["fixed", "content"] = "fixed"  # whether the coefficients over time also depend on the clip
    basis: Literal["dct", "random"] = "dct"
    blocks: Blocks = "all"
    sites: tuple[Literal["input", "ln_1", "ln_2", "ln_post"], ...] = ("input", "ln_post")
    text: Literal["scale", "none"] = "scale"

    model_config = ConfigDict(strict=False)


class Modulation(nn.Module):
    """One low-rank tensor M over time, tokens or blocks, and channels: M = sum_r A[t, r] U[u, r] B[r, d].

    time: no U. time_space: U over the tokens of a frame. time_layer: U over the blocks, which share A and B. With
    `time: content`, A[t, r] + sum_f salience[t, f] G[f, r] replaces A and depends on the clip. B and G are zero at step
    0, so M is zero at step 0.
    """

    def __init__(self, frames: int, width: int, options: Options, units: int):
        super().__init__()
        self.time = nn.Parameter(basis(frames, options))
        self.content = nn.Parameter(torch.zeros(2, options.rank)) if options.time == "content" else None
        self.unit = nn.Parameter(torch.ones(units, options.rank)) if units else None
        self.channel = nn.Parameter(torch.zeros(options.rank, width))

    def forward(self, x: Tensor, length: Tensor, layer: int | None) -> Tensor:
        """M for clips X [B, T, tokens, D] or [B, T, D] of `length` [B] valid frames: [B or 1, T, tokens or 1, D]."""
        rows = at_frames(self.time, length, x.shape[1])
        if self.content is not None:  # at block 0, [CLS] is the same in every frame: the mean of the tokens is not
            rows = rows + salience(x.mean(2) if x.ndim == 4 else x, length) @ self.content
        rows = rows[:, :, None]
        if self.unit is not None:
            rows = rows * (self.unit if layer is None else self.unit[layer])
        return rows @ self.channel


class LoRM(Tuner):
    """X' = (1 + S) * X + C at the chosen sites of the chosen blocks, X [B, T, N + 1, D].

    The site `ln_post` occurs once, on the pooled frames X [B, T, D]. It always has the decomposition `time`.
    """

    def __init__(self, tower: VideoTower, frames: int, options: Options):
        super().__init__()
        inside = [site for site in options.sites if site != "ln_post"]
        self.shared = options.decompose == "time_layer"
        units = {"time": 0, "time_space": tower.tokens, "time_layer": tower.layers}[options.decompose]
        self.names: dict[tuple[int, str], str] = {
            (layer, site): site if self.shared else f"{site}-{layer}"
            for layer in (chosen(options.blocks, tower) if inside else ())
            for site in inside
        }
        make = {name: (frames, tower.width, options, units) for name in self.names.values()}
        if "ln_post" in options.sites:
            self.names[tower.layers, "ln_post"] = "ln_post"
            make["ln_post"] = (frames, tower.pooled_width, options, 0)
        self.first_block = min(layer for layer, _ in self.names)
        self.scale = nn.ModuleDict({name: Modulation(*arguments) for name, arguments in make.items()})
        self.shift = nn.ModuleDict({name: Modulation(*arguments) for name, arguments in make.items()})

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        name = self.names.get((layer, site))
        if name is None:
            return x
        unit = layer if self.shared else None
        scale, shift = (part[name](x, context.length, unit) for part in (self.scale, self.shift))
        if site == "ln_post":
            scale, shift = scale[:, :, 0], shift[:, :, 0]
        else:  # the last block may hold only [CLS]
            scale, shift = scale[:, :, : x.shape[2]], shift[:, :, : x.shape[2]]
        return torch.addcmul(x + shift.to(x.dtype), x, scale.to(x.dtype))


def basis(frames: int, options: Options) -> Tensor:
    """A [T, r] at step 0: the first r rows of the cosine transform, the first constant, or Gaussian of similar norm."""
    if options.basis == "random":
        return torch.randn(frames, options.rank) / math.sqrt(2)
    time = (torch.arange(frames) + 0.5) / frames
    return torch.cos(math.pi * time[:, None] * torch.arange(options.rank))


def salience(x: Tensor, length: Tensor) -> Tensor:
    """The salience of each frame in its clip, [B, T, 2], from one vector per frame, x [B, T, D].

    The squared distances from the mean of the clip and from the previous frame, each divided by its mean over the
    clip, minus 1: of mean zero, and independent of the scale of x. Padded frames get 0.
    """
    valid = (torch.arange(x.shape[1], device=x.device) < length[:, None]).to(x.dtype)
    count = valid.sum(1, keepdim=True)
    apart = x - (x * valid[..., None]).sum(1, keepdim=True) / count[..., None]
    change = x - torch.cat([x[:, :1], x[:, :-1]], dim=1)
    squares = torch.stack([(apart**2).sum(-1), (change**2).sum(-1)], dim=-1) * valid[..., None] + EPSILON
    return (squares * count[..., None] / squares.mul(valid[..., None]).sum(1, keepdim=True) - 1) * valid[..., None]


@register("lorm", blocks=lambda lorm: set(lorm.sites) != {"ln_post"}, lorm=Options)
def build(clip: Clip, frames: int, lorm: Options) -> Adapter:
    """LoRM only: low-rank temporal modulation of the frame features (RAP, Cao et al. 2024)

    Parameters: 2 r (T + D) per block and site for `time`; 2 r (T + N + 1 + D) per block and site for `time_space`;
    2 r (T + L + D) per site for `time_layer`; 2 r (T + D) for the site `ln_post`; 4 r more of each for `time: content`;
    2 D per block of the text tower.
    """
    return Adapter(LoRM(clip.visual, frames, lorm), text_tuner(clip, lorm.text))
