"""ASA: asynchronous self-attention over the most responsive patches (RAP, ACL 2024 Findings).

The paper's public text: a text-conditioned selection picks the most responsive patches; they are warped by a learnable
patch offset and a learnable temporal offset, and attention models the correlation between them. The equations are our
reading: see docs/method.md.

Each head looks `delta` frames later and `gamma` patches away. With h = down(LN(x)), a token at frame t and patch p
becomes

    x + up(gelu(own(h) + concat over heads of found)),    up = 0 at step 0

deformable    found = v at (t + delta, p + gamma), linear between frames and between patches
attention     found = softmax(score) v, where the score of the token at t', p' is
              q k / sqrt(r / heads) - s (t' - t - delta)^2 - l min(|p' - p - gamma|^2, 8)
"""

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, model_validator
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.layers import Blocks, chosen, full, text_tuner
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tuner, VideoTower, repeated
from rap.errors import UserError
from rap.params import Count, Section

REACH = 8.0  # upper bound of the squared patch distance in the score
APART = -4.0  # at step 0, added to the scores between a patch and the [CLS] token of a frame


class Options(Section):
    form: Literal["deformable", "attention"] = "deformable"
    blocks: Blocks = (-2, -1)
    rank: Count = 16
    offsets: tuple[float, ...] = (-1.0, 1.0, -2.0, 2.0)  # of each head at step 0, in frames
    local: bool = True  # whether a head prefers nearby patches
    top_k: Count | None = None  # selected patches per frame; null: all
    query: Literal["frame", "text"] = "frame"  # the source of the selection
    text: Literal["scale", "none"] = "scale"

    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _consistent(self) -> "Options":
        if self.rank % len(self.offsets):
            raise ValueError(f"rank must be a multiple of the number of offsets, {len(self.offsets)}")
        if self.query == "text" and self.top_k is None:
            raise ValueError("query: text selects patches, so form must be attention and top_k a number")
        if self.form == "deformable" and not (self.local and self.top_k is None):
            raise ValueError("form: deformable reads one place, so local must be true and top_k null")
        return self


class Correlation(nn.Module):
    """The parameters of one block, and its edit of the tokens at the block's input. Subclasses: where a head looks."""

    def __init__(self, tower: VideoTower, frames: int, options: Options):
        super().__init__()
        heads, self.frames, self.cls = len(options.offsets), frames, tower.class_tokens
        self.norm = nn.LayerNorm(tower.width, elementwise_affine=False)
        self.down = nn.Linear(tower.width, options.rank)
        self.own = nn.Linear(options.rank, options.rank)
        self.value = nn.Linear(options.rank, options.rank, bias=False)
        self.up = nn.Linear(options.rank, tower.width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.delta = nn.Parameter(torch.tensor(options.offsets))
        self.gamma = nn.Parameter(torch.zeros(heads, 2)) if options.local else None  # patches to the right and down
        grid = tower.grid
        place = torch.arange(grid**2)
        self.places: Tensor
        self.register_buffer("places", torch.stack([place % grid, place // grid], -1).float(), persistent=False)

    def forward(self, x: Tensor, index: Tensor | None, length: Tensor) -> Tensor:
        """Tokens [B, T, C + N, D] -> the same; C is 1 if there is a [CLS], else 0.

        `index` [B, T, k]: the selected patches; None: all.
        """
        h = self.down(self.norm(x))
        found = self.found(h, index, length)
        return x + self.up(F.gelu(self.own(h) + found))

    def found(self, h: Tensor, index: Tensor | None, length: Tensor) -> Tensor:
        raise NotImplementedError

    def times(self, length: Tensor, frames: int) -> Tensor:
        """The time of each frame in frames of the trained clips, [B or 1, T]: a shorter clip has longer steps."""
        count = length[:1] if full(length, frames) else length
        return (torch.arange(frames, device=length.device) + 0.5) / count[:, None] * self.frames

    def heads(self, x: Tensor) -> Tensor:
        """[B, T, M, r] -> [B, heads, T, M, r / heads]."""
        return x.unflatten(-1, (len(self.delta), -1)).movedim(-2, 1)


class Attention(Correlation):
    """Softmax over the tokens of all frames; keys are [CLS] and the selected patches of each frame."""

    def __init__(self, tower: VideoTower, frames: int, options: Options):
        super().__init__(tower, frames, options)
        heads = len(options.offsets)
        self.query, self.key = (nn.Linear(options.rank, options.rank, bias=False) for _ in range(2))
        self.sharp = nn.Parameter(torch.full((heads,), math.log(2.0)))  # s and l are exponentials
        self.near = nn.Parameter(torch.full((heads,), math.log(1.5))) if options.local else None
        self.apart = nn.Parameter(torch.full((heads, 2), APART))  # of [CLS] from a patch, of a patch from [CLS]

    def found(self, h: Tensor, index: Tensor | None, length: Tensor) -> Tensor:
        frames, tokens = h.shape[1:3]
        kept = h if index is None else torch.cat([h[:, :, : self.cls], taken(h[:, :, self.cls :], index)], dim=2)
        q = self.heads(self.query(h)).flatten(2, 3)
        k, v = (self.heads(linear(kept)).flatten(2, 3) for linear in (self.key, self.value))
        bias = self.in_time(length, frames)[:, :, :, None, :, None] + self.in_space(index)
        bias = bias.flatten(4, 5).flatten(2, 3)
        if not full(length, frames):
            padding = torch.arange(frames, device=h.device) >= length[:, None]
            bias = bias.masked_fill(padding.repeat_interleave(kept.shape[2], 1)[:, None, None], -torch.inf)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return found.unflatten(2, (frames, tokens)).movedim(1, -2).flatten(-2)

    def in_time(self, length: Tensor, frames: int) -> Tensor:
        """The temporal part of the score, [B or 1, heads, T, T]: of frame t (row) with frame t' (column)."""
        time = self.times(length, frames)
        late = time[:, None, None, :] - time[:, None, :, None] - self.delta[:, None, None]
        return -self.sharp.exp()[:, None, None] * late**2

    def in_space(self, index: Tensor | None) -> Tensor:
        """The spatial part, [1, heads, 1, C + N, 1, C + N] or, with a selection, [B, heads, 1, C + N, T, C + k]."""
        patches = self.apart.new_zeros(len(self.apart), len(self.places), len(self.places))
        if self.near is not None and self.gamma is not None:
            far = self.places - self.places[:, None] - self.gamma[:, None, None]  # [heads, N, N, 2]: row to column
            patches = -self.near.exp()[:, None, None] * (far**2).sum(-1).clamp(max=REACH)
        cls = self.apart[:, 0, None, None].expand(-1, self.cls, len(self.places))
        rows = torch.cat([cls, patches], dim=1)  # [heads, C + N, N]
        away = self.apart[:, 1, None, None].expand(-1, len(self.places), self.cls)
        first = torch.cat([rows.new_zeros(len(rows), self.cls, self.cls), away], dim=1)  # [heads, C + N, C]
        if index is None:
            return torch.cat([first, rows], dim=-1)[None, :, None, :, None, :]
        picked = rows[:, :, index].permute(2, 0, 1, 3, 4)  # [B, heads, C + N, T, k]
        first = first[None, :, :, None].expand(len(index), -1, -1, index.shape[1], -1)
        return torch.cat([first, picked], dim=-1)[:, :, None]


class Deformable(Correlation):
    """Each token reads the value at its own place, moved by the offsets: linear between frames and between patches."""

    def found(self, h: Tensor, index: Tensor | None, length: Tensor) -> Tensor:
        values, frames = self.heads(self.value(h)), h.shape[1]
        time = self.times(length, frames) + self.delta[:, None, None]  # [heads, B or 1, T]
        at = (time / self.frames * length[:, None] - 0.5).clamp(min=0).minimum((length - 1)[:, None])
        values = torch.einsum("hbts,bhsmc->bhtmc", between(at, frames), values)
        assert self.gamma is not None, "the deformable form is local"
        grid = math.isqrt(len(self.places))
        at = (self.places + self.gamma[:, None]).clamp(0, grid - 1)  # [heads, N, 2]
        right, down = between(at[..., 0], grid), between(at[..., 1], grid)
        patches = values[:, :, :, self.cls :].unflatten(3, (grid, grid))
        moved = torch.einsum("hny,hnx,bhtyxc->bhtnc", down, right, patches)
        return torch.cat([values[:, :, :, : self.cls], moved], dim=3).movedim(1, -2).flatten(-2)


FORMS = {"deformable": Deformable, "attention": Attention}


def between(position: Tensor, count: int) -> Tensor:
    """Weights of linear interpolation at real positions [...] within 0 and `count` - 1: [..., count]."""
    low = position.detach().floor().clamp(max=max(count - 2, 0)).long()
    share = (position - low)[..., None]
    row = torch.arange(count, device=position.device)
    return (row == low[..., None]) * (1 - share) + (row == low[..., None] + 1) * share


def taken(patches: Tensor, index: Tensor) -> Tensor:
    """The patches [B, T, N, D] at `index` [B, T, k]: [B, T, k, D]."""
    return patches.gather(2, index[..., None].expand(-1, -1, -1, patches.shape[-1]))


class ASA(Tuner):
    """At the input of the chosen blocks, every token of a clip attends to the responsive patches of all its frames.

    Raises UserError if the text selects patches and the tower's head does not read [CLS].
    """

    def __init__(self, tower: VideoTower, frames: int, options: Options):
        super().__init__()
        blocks = chosen(options.blocks, tower)
        self.first_block = min(blocks)
        self.text = options.query == "text"
        if self.text and not tower.has_direction:
            raise UserError(
                "a selection of patches by the text needs a plain ViT, whose head reads [CLS]; set query: frame in the "
                "variant, or choose a ViT of CLIP as the backbone"
            )
        self.conditioned = self.first_block if self.text else self.conditioned
        self.top_k = None if options.top_k is None else min(options.top_k, tower.grid**2)
        form = FORMS[options.form]
        self.correlations = nn.ModuleDict({str(n): form(tower, frames, options) for n in blocks})

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        if site != "input" or str(layer) not in self.correlations:
            return x
        index = self.select(layer, x, context)
        if self.text and context.query is not None:
            texts = context.query.shape[1]
            x, context.length = repeated(x, texts), repeated(context.length, texts)
            context.query = context.query.flatten(0, 1)[:, None]
        return cast(Correlation, self.correlations[str(layer)])(x, index, context.length)

    @torch.no_grad()
    def select(self, layer: int, x: Tensor, context: Context) -> Tensor | None:
        """S_t: the k most responsive patches of each frame, [B, T, k], or [B n, T, k] for n texts; None: all.

        The response to a frame is the attention of its [CLS] in the block's own, frozen attention, the mean over heads.
        If the tower has no [CLS], it is the attention of the mean query of the patches. The response to a text is what
        the patch adds through this attention to the [CLS] token in the direction of the text: for each head, the
        attention times the product of the patch's value with the text, projected back through the output projections
        (the values are those of MaskCLIP, Zhou et al. 2022). No gradient passes through.
        """
        if self.top_k is None:
            return None
        tower = cast(VideoTower, context.tower)
        block, cls = tower.blocks[layer], tower.class_tokens
        q, k, v = block.attended(x, tower)  # [B, T, heads, C + N, D / heads]
        q = q[..., :1, :] if cls else q.mean(-2, keepdim=True)
        scores = q @ k[..., cls:, :].transpose(-1, -2) / math.sqrt(q.shape[-1])
        attention = scores.softmax(-1)[..., 0, :]  # [B, T, heads, N]
        if not self.text:
            return attention.mean(2).topk(self.top_k, dim=-1).indices
        assert context.query is not None, "a selection by the text needs the texts"
        wanted = tower.toward(context.query.to(x.dtype), layer)
        wanted = wanted.unflatten(-1, (block.heads, -1))  # [B, n, heads, D / heads]
        response = torch.einsum("bthp,bthpd,bnhd->bntp", attention, v[..., cls:, :], wanted)
        return response.topk(self.top_k, dim=-1).indices.flatten(0, 1)


@register("asa", asa=Options)
def build(clip: Clip, frames: int, asa: Options) -> Adapter:
    """ASA only: asynchronous self-attention over responsive patches (RAP, Cao et al. 2024)

    Parameters per block, with rank r and H heads: 2 r D + 2 r^2 + 2 r + D + 3 H for `deformable`; 2 r^2 + 4 H more for
    `attention`, and 3 H fewer without `local`; and 2 D for each block of the text tower.
    """
    return Adapter(ASA(clip.visual, frames, asa), text_tuner(clip, asa.text))
