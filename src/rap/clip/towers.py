"""The interface of a CLIP whose towers can start and stop at any depth, and which adapters can edit at named sites.

Each family of towers has its own file: `plain` (the ViTs of CLIP), `variants` (other ViTs and texts of open_clip),
`timm_vit` (SigLIP, MobileCLIP), `timm_eva` (EVA, PE-Core), and `whole` for towers that cannot be cut.

Positions in a tower with L blocks: INPUT (-1) is the pixels or token ids; d in 0..L is the tokens after d blocks; L + 1
(`tower.all`) is the embeddings in the joint space. `tower.run(x, a, b)` goes from position a to position b. Running
a..d and then d..b performs the same operations as a..b, so a cache at d does not change any result.

Most heads read one token after block L: [CLS] of a frame, the end token of a text. Then the last block computes only
this token, so it costs less than a third of any other block, and position L holds one token. A head that pools all
tokens of a frame, such as SigLIP's, needs all of them at position L.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = -1
SITES = ("input", "ln_1", "qkv", "out", "ln_2", "fc", "proj")  # of a block
# ln_1 and ln_2 are the inputs of attention and MLP: the normed tokens or, if a block norms afterwards, the tokens. out
# and proj precede a scale or a norm of the branch. fc precedes the activation; a gated MLP has gate and value there.
# The head has layer number L and two sites: "ln_post" after its norm and pooling, "joint" after its projection.


@dataclass
class Context:
    """Inputs of an edit besides the tokens: `length` [B], the valid frames or words, and `query` [B, n, E], the texts.

    An edit that inserts or merges words or frames updates `length`. The first edit that uses the n texts of each clip
    repeats the clip n times, in adjacent rows, and updates both fields. The texts share all computation before it.
    """

    tower: "Tower"
    length: Tensor
    query: Tensor | None = None


class Tuner(nn.Module):
    """A method's edits of one tower. The base class edits nothing.

    `first_block` is the lowest block that the tuner edits (math.inf: none). All blocks below it are frozen, so their
    output can be cached. `conditioned` is the lowest block whose result depends on the query (math.inf: none).
    """

    first_block: float = math.inf
    conditioned: float = math.inf

    def block(self, layer: int, block: "Block") -> "Block":
        """Return the block to run as number `layer`."""
        return block

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        """Return the new value of a site. `source` is the input of the linear map at qkv, out, fc, proj and joint.

        At `input` the number of tokens and the number of frames may change. In the last block, if the head reads one
        token, the sites out, ln_2, fc and proj hold only this token, and at qkv all tokens have its query.
        """
        return x

    def prompts(self, layer: int, x: Tensor, context: Context) -> Tensor | None:
        """Return extra tokens [1 or B, (1 or T,) P, D] for the attention of the block with input x; None: none."""
        return None

    def attend(self, layer: int, block: "Block", x: Tensor, q: Tensor, attended: Tensor, context: Context) -> Tensor:
        """Return the new output of attention [B, ..., heads, tokens, width / heads].

        `x` is the block's input, `q` its queries and `attended` the frozen attention's output. An edit that uses the n
        texts of each clip returns [B n, ...].
        """
        return attended


class Block(nn.Module, ABC):
    """One residual attention block on tokens [..., N, D]. A family defines its norms, projections and activation."""

    heads: int
    ln_1: Callable[[Tensor], Tensor]
    ln_2: Callable[[Tensor], Tensor]

    def forward(
        self,
        x: Tensor,
        layer: int,
        tuner: Tuner,
        context: Context,
        mask: Tensor | None,
        pick: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the tokens after the block: all, or the selection of `pick` from [..., tokens, width].

        `mask` has one row for each returned token.
        """

        def edit(site: str, x: Tensor, source: Tensor | None = None) -> Tensor:
            return tuner.edit(layer, site, x, source, context)

        h = edit("ln_1", self.ln_1(x))
        q, k, v = map(self.split, edit("qkv", self.qkv_for(h, pick), h).chunk(3, -1))
        q, k = self.placed(q, k, context.tower)
        prompts = tuner.prompts(layer, x, context)
        if prompts is not None:
            k, v, mask = self.extend(k, v, mask, prompts)
        q = pick(q) if pick else q
        a = self.merge(tuner.attend(layer, self, x, q, attention(q, k, v, mask), context))
        x = repeated(pick(x) if pick else x, len(a) // len(x)) + self.after_attention(edit("out", self.out(a), a))
        h = edit("ln_2", self.ln_2(x))
        h = self.activated(edit("fc", self.fc(h), h))
        return x + self.after_mlp(edit("proj", self.proj(h), h))

    @property
    @abstractmethod
    def sizes(self) -> dict[str, tuple[int, int]]:
        """The channels into and out of the linear map at each of the sites qkv, out, fc and proj."""

    @abstractmethod
    def joined(self) -> tuple[Tensor, Tensor | None]:
        """The weight [3 width, D] and the bias of the map to queries, keys and values of all heads, in this order."""

    @abstractmethod
    def out(self, a: Tensor) -> Tensor:
        """Attention's last linear map."""

    @abstractmethod
    def fc(self, h: Tensor) -> Tensor:
        """The MLP's first linear map."""

    @abstractmethod
    def activated(self, h: Tensor) -> Tensor:
        """The activation between the two linear maps of the MLP."""

    @abstractmethod
    def proj(self, h: Tensor) -> Tensor:
        """The MLP's second linear map."""

    def qkv(self, h: Tensor, rows: slice = slice(None)) -> Tensor:
        """The queries, keys and values of all heads, one after the other in the last dimension, or `rows` of them."""
        weight, bias = self.joined()
        return F.linear(h, weight[rows], None if bias is None else bias[rows])

    def qkv_for(self, h: Tensor, pick: Callable[[Tensor], Tensor] | None) -> Tensor:
        """qkv(h). With `pick`, every token has the query of the picked one, since no other query is used."""
        if pick is None:
            return self.qkv(h)
        width = self.sizes["qkv"][1] // 3
        query = self.qkv(pick(h), slice(width)).expand(*h.shape[:-1], -1)
        return torch.cat([query, self.qkv(h, slice(width, None))], dim=-1)

    def placed(self, q: Tensor, k: Tensor, tower: "Tower") -> tuple[Tensor, Tensor]:
        """Queries and keys [..., heads, N, D / heads] after their norm and the rotation by position, if any."""
        return q, k

    def after_attention(self, x: Tensor) -> Tensor:
        """A scale or a norm of attention's output before it is added to the tokens."""
        return x

    def after_mlp(self, x: Tensor) -> Tensor:
        """A scale or a norm of the MLP's output before it is added to the tokens."""
        return x

    def attended(self, x: Tensor, tower: "Tower") -> tuple[Tensor, Tensor, Tensor]:
        """The frozen attention's queries, keys and values of tokens x: [..., heads, N, D / heads]."""
        q, k, v = map(self.split, self.qkv(self.ln_1(x)).chunk(3, -1))
        return *self.placed(q, k, tower), v

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the block's frozen projections to tokens [..., M, D] without a place: [..., heads, M, D / heads]."""
        width = self.sizes["qkv"][1] // 3
        k, v = map(self.split, self.qkv(self.ln_1(x), slice(width, None)).chunk(2, -1))
        return k, v

    def extend(
        self, k: Tensor, v: Tensor, mask: Tensor | None, prompts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Prepend the keys and values of `prompts`, which every token attends to."""
        front = [x.expand(*k.shape[:-2], -1, -1) for x in self.keys_and_values(prompts)]
        mask = None if mask is None else F.pad(mask, (prompts.shape[-2], 0))
        return torch.cat([front[0], k], dim=-2), torch.cat([front[1], v], dim=-2), mask

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(-3, -2).flatten(-2)


def repeated(x: Tensor, count: int) -> Tensor:
    """Repeat each row of x [B, ...] `count` times, in adjacent rows: [B count, ...]."""
    return x if count == 1 else x.repeat_interleave(count, dim=0)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention. Flattens the leading dimensions, because the fast kernels accept only four."""
    lead = q.shape[:-3]
    q, k, v = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
    mask = None if mask is None else mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(0, lead)


class Tower(nn.Module, ABC):
    """`embed` turns the input into tokens, the blocks transform them, `pooled` and `joint` make them an embedding.

    `width`: the channels of a token. `pooled_width`: those of the pooled vector. `whole`: the reason why the tower has
    no blocks to edit, if it has none. `reads_one`: whether the head reads one token, which `read` selects.
    """

    width: int
    pooled_width: int
    whole: str = ""
    reads_one: bool = True

    @property
    @abstractmethod
    def blocks(self) -> list[Block]: ...

    @property
    def layers(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    @property
    def all(self) -> int:
        """The last position: the embeddings in the joint space."""
        return self.layers + 1

    def run(self, x: Tensor, start: int, stop: int, context: Context, tuner: Tuner) -> Tensor:
        """Run the tower from position `start` to position `stop`."""
        if start == INPUT and stop > INPUT:
            x, start = self.embed(x), 0
        blocks = self.blocks
        for layer in range(start, min(stop, self.layers)):
            x = tuner.edit(layer, "input", x, None, context)
            block = tuner.block(layer, blocks[layer])
            x = block(x, layer, tuner, context, *self.masked(x, context, last=layer == self.layers - 1))
        return self.head(x, context, tuner) if stop == self.all and start < stop else x

    def masked(self, x: Tensor, context: Context, last: bool) -> tuple[Tensor | None, Callable | None]:
        """Return a block's attention mask and its `pick`: in the last block, the token that the head reads."""
        mask = self.mask(x, context)
        if not (last and self.reads_one):
            return mask if mask is None or mask.ndim == 2 else mask[:, None], None
        mask = None if mask is None else self.read(mask.expand(len(x), -1, -1), context)[:, None]
        return mask, lambda tokens: self.read(tokens, context)

    def head(self, x: Tensor, context: Context, tuner: Tuner) -> Tensor:
        """Pool the tokens of position L, [..., 1 or N, D], and project them: embeddings [..., E]."""
        h = tuner.edit(self.layers, "ln_post", self.pooled(x), None, context)
        return tuner.edit(self.layers, "joint", self.joint(h), h, context)

    def mask(self, x: Tensor, context: Context) -> Tensor | None:
        """The mask to add to the attention scores of tokens x, [N, N] or [B, N, N]; None: all attend to all."""
        return None

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Turn the tower's input into the tokens of position 0."""

    @abstractmethod
    def read(self, x: Tensor, context: Context) -> Tensor:
        """Select from [..., tokens, D] the token that the head reads, [..., 1, D]."""

    @abstractmethod
    def pooled(self, x: Tensor) -> Tensor:
        """Norm and pool the tokens of position L, [..., 1 or N, D]: [..., pooled_width]."""

    @abstractmethod
    def joint(self, h: Tensor) -> Tensor:
        """Project the pooled vector into the joint space: [..., E]."""


class VideoTower(Tower):
    """Frames [B, T, size, size, 3] uint8 -> tokens [B, T, prefix + patches, D] -> frame embeddings [B, T, E].

    `grid`: patches on one side. `class_tokens`: 1 if [CLS] precedes the patches, else 0. `has_direction`: whether
    `toward` is defined.
    """

    size: int
    grid: int
    class_tokens: int = 1
    has_direction: bool = False
    heads: int
    mean: Tensor
    std: Tensor

    def normalised(self, x: Tensor) -> Tensor:
        """Pixels [B, T, size, size, 3] uint8, normalised for the model, [B T, 3, size, size]."""
        return x.flatten(0, 1).movedim(-1, 1).to(self.mean.dtype).div(255).sub(self.mean).div(self.std)

    def set_normalisation(self, preprocess: dict) -> None:
        """`mean` and `std` of each colour."""
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preprocess[name]).view(3, 1, 1), persistent=False)

    @property
    def tokens(self) -> int:
        """The tokens of a frame."""
        return self.class_tokens + self.grid**2

    def read(self, x: Tensor, context: Context) -> Tensor:
        return x[..., :1, :]

    def project(self, x: Tensor) -> Tensor:
        """Each of the tokens [..., N, D] in the joint space, as if it were the only token: [..., N, E]."""
        return self.joint(self.pooled(x[..., None, :]))

    def toward(self, query: Tensor, layer: int) -> Tensor:
        """The direction in which a head of block `layer` moves [CLS] towards the texts [..., E]: [..., D].

        Defined if `has_direction`.
        """
        raise NotImplementedError


class TextTower(Tower):
    """Token ids [B, W] -> tokens [B, W, D] -> text embeddings [B, E], read at position length - 1.

    `words`: the fixed number of words of a tower that attends to padding; None: padding changes nothing.
    `class_tokens`: 1 if a [CLS] follows the words, else 0.
    """

    words: int | None = None
    class_tokens: int = 0
    heads: int
    positional_embedding: nn.Parameter

    def read(self, x: Tensor, context: Context) -> Tensor:
        end = (context.length - 1).view(-1, *[1] * (x.ndim - 1))
        return x.gather(-2, end.expand(*x.shape[:-2], 1, x.shape[-1]))


class Clip(nn.Module):
    """Both towers, the logit scale and, if the model has one, the logit bias."""

    visual: VideoTower
    text: TextTower
    embed_dim: int
    logit_scale: nn.Parameter
    logit_bias: nn.Parameter | None

    @property
    def weights(self) -> nn.Module:
        """The module whose state is the file weights.safetensors."""
        return self

    def logits(self, similarity: Tensor) -> Tensor:
        """The logits of the pretraining loss: cosines, scaled, and shifted if the model has a bias."""
        scaled = self.logit_scale.exp() * similarity
        return scaled if self.logit_bias is None else scaled + self.logit_bias

    def freeze(self) -> "Clip":
        """Turn off gradients and training mode; return the same object."""
        return self.requires_grad_(False).eval()
