"""First reading of ASA: attention through the frozen projections of a block, and a gate.

The paper's public text: a text-conditioned selection picks the most responsive patches; they are warped by a learnable
patch offset and a learnable temporal offset, and attention models the correlation between them. This reading learns no
motions (see docs/method.md), and its selection picks the background; rap.adapters.asa is the present reading.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import ConfigDict
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.layers import Blocks, chosen, interpolate, text_tuner
from rap.adapters.registry import register
from rap.clip.towers import Block, Clip, Context, Tuner, VideoTower, repeated
from rap.params import Count, Section


class Options(Section):
    blocks: Blocks = (-3, -2)  # not the last: only its [CLS] reaches the embedding
    top_k: Count = 4
    query: Literal["frame", "text"] = "frame"
    position: Literal["none", "bias", "embedding"] = "bias"
    patch_offset: bool = True
    time_offset: bool = True
    text: Literal["scale", "none"] = "scale"

    model_config = ConfigDict(strict=False)


class Offsets(nn.Module):
    """Predicts from a selected token how far to move: patches right, patches down, frames later. Zero at step 0."""

    def __init__(self, width: int, options: Options):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.patch = zero_linear(width, 2) if options.patch_offset else None
        self.time = zero_linear(width, 1) if options.time_offset else None

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [..., D] -> offsets in patches [..., 2] and in frames [...]."""
        h, zero = self.norm(tokens), tokens.new_zeros(*tokens.shape[:-1], 2)
        return self.patch(h) if self.patch else zero, (self.time(h) if self.time else zero)[..., 0]


def zero_linear(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Exchange(nn.Module):
    """The parameters of one block: the offsets, a gate per head, and the temporal position signal."""

    def __init__(self, frames: int, width: int, heads: int, options: Options):
        super().__init__()
        self.offsets = Offsets(width, options)
        self.gate = nn.Parameter(torch.zeros(heads))
        self.bias = nn.Parameter(torch.zeros(2 * frames - 1, heads)) if options.position == "bias" else None
        self.embedding = nn.Parameter(torch.zeros(frames, width)) if options.position == "embedding" else None


class GatedASA(Tuner):
    """Every frame attends to the warped responsive patches of the clip, through the block's frozen projections."""

    def __init__(self, tower: VideoTower, frames: int, options: Options):
        super().__init__()
        blocks = chosen(options.blocks, tower)
        self.first_block = min(blocks)
        self.text = options.query == "text"
        self.conditioned = self.first_block if self.text else self.conditioned
        self.grid, self.cls = tower.grid, tower.class_tokens
        self.top_k = min(options.top_k, tower.grid**2)
        make = {str(layer): Exchange(frames, tower.width, tower.heads, options) for layer in blocks}
        self.exchanges = nn.ModuleDict(make)

    def attend(self, layer: int, block: Block, x: Tensor, q: Tensor, attended: Tensor, context: Context) -> Tensor:
        if str(layer) not in self.exchanges:
            return attended
        exchange = cast(Exchange, self.exchanges[str(layer)])
        patches, frames = x[:, :, self.cls :], x.shape[1]
        index = self.select(x, context)
        tokens = patches.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]))
        patch, delta = exchange.offsets(tokens)
        last = (context.length - 1)[:, None, None]  # never in the padding
        time = (torch.arange(frames, device=x.device)[:, None] + delta).clamp(min=0).minimum(last)
        warped = sample(patches, self.grid, index, patch, time)
        if context.query is not None:
            texts = context.query.shape[1]
            warped, time = of_each(warped, texts), of_each(time, texts)
            q, attended, context.length = (repeated(x, texts) for x in (q, attended, context.length))
            context.query = context.query.flatten(0, 1)[:, None]
        warped, time = warped.flatten(1, 2), time.flatten(1)
        if exchange.embedding is not None:
            warped = warped + interpolate(exchange.embedding, relative(time, context.length, len(exchange.embedding)))
        k, v = block.keys_and_values(warped)
        mask = self.scores(exchange, time, frames, context)
        _batch, _, _heads, count, _ = q.shape
        merged = q.transpose(1, 2).flatten(2, 3)  # queries of all frames: [B, heads, T N, D / heads]
        mask = mask.repeat_interleave(count, dim=2)
        found = F.scaled_dot_product_attention(merged, k, v, attn_mask=mask.to(q.dtype))
        found = found.unflatten(2, (frames, count)).transpose(1, 2)
        return attended + exchange.gate[:, None, None] * found

    def select(self, x: Tensor, context: Context) -> Tensor:
        """S_t: the k most responsive patches for each frame and each text, [B, T, n k].

        The response is the cosine with the text in CLIP's joint space or, without texts, with the pooled frame: its own
        [CLS], if there is one. No gradient passes through the selection.
        """
        with torch.no_grad():
            tower = cast(VideoTower, context.tower)
            patches = F.normalize(tower.project(x[:, :, self.cls :]), dim=-1)
            if context.query is None:
                frame = F.normalize(tower.joint(tower.pooled(x)), dim=-1)
                response = torch.einsum("btpe,bte->btp", patches, frame)[:, :, None]
            else:
                response = torch.einsum("btpe,bne->btnp", patches, context.query.to(patches.dtype))
            return response.topk(self.top_k, dim=-1).indices.flatten(2)

    def scores(self, exchange: Exchange, time: Tensor, frames: int, context: Context) -> Tensor:
        """The mask of frame t's attention to a warped token: a bias by their time difference, -inf for padding.

        `time` [B, M] is the time of the warped tokens, in frames. Returns [B, heads, T, M].
        """
        clock = torch.arange(frames, device=time.device)
        padding = torch.where(clock[None] < context.length[:, None], 0.0, -torch.inf)
        padding = padding.repeat_interleave(self.top_k, dim=1)
        mask = padding[:, None, None, :].expand(-1, len(exchange.gate), frames, -1)
        if exchange.bias is None:
            return mask
        span = len(exchange.bias) // 2
        apart = (time[:, None] - clock[:, None]) / (context.length[:, None, None] - 1).clamp(min=1)
        return mask + interpolate(exchange.bias, (apart + 1) * span).movedim(-1, 1)


def of_each(x: Tensor, texts: int) -> Tensor:
    """Split the selection for all texts, [B, T, texts k, ...], into one clip per text: [B texts, T, k, ...]."""
    return x.unflatten(2, (texts, -1)).movedim(2, 1).flatten(0, 1)


def sample(patches: Tensor, grid: int, index: Tensor, patch: Tensor, time: Tensor) -> Tensor:
    """Sample tokens at real-valued places: trilinear between frames and patches, clamped at the borders.

    patches [B, T, grid^2, D]; index [B, T, k] of the selected patches; patch [B, T, k, 2], the offsets to the right and
    down, in patches; time [B, T, k], in frames. Returns [B, T, k, D].
    """
    frames = patches.shape[1]
    volume = patches.unflatten(2, (grid, grid)).movedim(-1, 1)
    right, down = index % grid + patch[..., 0], index // grid + patch[..., 1]
    sizes = ((right, grid), (down, grid), (time, frames))
    place = torch.stack([2 * at / max(size - 1, 1) - 1 for at, size in sizes], dim=-1)
    found = F.grid_sample(volume, place[..., None, :].to(volume.dtype), padding_mode="border", align_corners=True)
    return found[..., 0].movedim(1, -1)


def relative(time: Tensor, length: Tensor, rows: int) -> Tensor:
    """Convert frame times [B, M] of clips with `length` [B] frames to positions in a table of `rows` over time."""
    return (time + 0.5) / length[:, None] * rows - 0.5


@register("asa_gate", asa_gate=Options)
def build(clip: Clip, frames: int, asa_gate: Options) -> Adapter:
    """ASA, first reading: gated attention to warped responsive patches (RAP, Cao et al. 2024)

    Parameters per block: 3 (D + 1) for both offsets, one gate per head, and heads (2 T - 1) for the bias or T D for the
    embedding; and 2 D for each block of the text tower.
    """
    return Adapter(GatedASA(clip.visual, frames, asa_gate), text_tuner(clip, asa_gate.text))
