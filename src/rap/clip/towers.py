"""A ViT CLIP. Each tower can start and stop at any depth, and adapters can edit it at named sites.

The arithmetic and the parameter names are those of open_clip's CLIP, so its weights load without conversion.

Positions in a tower with L blocks: INPUT (-1) is the pixels or token ids; d in 0..L is the tokens after d blocks; L + 1
(`tower.all`) is the embeddings in the joint space. `tower.run(x, a, b)` goes from position a to position b. Running
a..d and then d..b performs the same operations as a..b, so a cache at d does not change any result.

The head reads one token after block L: [CLS] of a frame, the end token of a text. The last block computes only this
token, so it costs less than a third of any other block, and position L holds one token.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = -1
SITES = ("input", "ln_1", "qkv", "out", "ln_2", "fc", "proj")  # of a block
# The head has layer number L and two sites: "ln_post" after its norm and "joint" after its projection.


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

        At `input` the number of tokens and the number of frames may change. In the last block, the sites out, ln_2, fc
        and proj hold only the token that the head reads.
        """
        return x

    def prompts(self, layer: int, context: Context) -> Tensor | None:
        """Return extra tokens [1 or B, (1 or T,) P, D] for the block's attention, at the block's input; None: none."""
        return None

    def attend(self, layer: int, block: "Block", x: Tensor, q: Tensor, attended: Tensor, context: Context) -> Tensor:
        """Return the new output of attention [B, ..., heads, tokens, width / heads].

        `x` is the block's input, `q` its queries and `attended` the frozen attention's output. An edit that uses the n
        texts of each clip returns [B n, ...].
        """
        return attended


class Block(nn.Module):
    """One residual attention block on tokens [..., N, D]."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: nn.Module, eps: float):
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, hidden), "gelu": activation, "c_proj": nn.Linear(hidden, width)}
        )

    def forward(
        self,
        x: Tensor,
        layer: int,
        tuner: Tuner,
        context: Context,
        mask: Tensor | None,
        pick: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the tokens after the block: all, or those that `pick` selects from [..., tokens, width].

        `mask` has one row for each returned token.
        """

        def edit(site: str, x: Tensor, source: Tensor | None = None) -> Tensor:
            return tuner.edit(layer, site, x, source, context)

        h = edit("ln_1", self.ln_1(x))
        q, k, v = map(
            self.split, edit("qkv", F.linear(h, self.attn.in_proj_weight, self.attn.in_proj_bias), h).chunk(3, -1)
        )
        prompts = tuner.prompts(layer, context)
        if prompts is not None:
            k, v, mask = self.extend(k, v, mask, prompts)
        q = pick(q) if pick else q
        a = self.merge(tuner.attend(layer, self, x, q, attention(q, k, v, mask), context))
        x = repeated(pick(x) if pick else x, len(a) // len(x)) + edit("out", self.attn.out_proj(a), a)
        h = edit("ln_2", self.ln_2(x))
        h = self.mlp["gelu"](edit("fc", self.mlp["c_fc"](h), h))
        return x + edit("proj", self.mlp["c_proj"](h), h)

    @property
    def hidden(self) -> int:
        """The width of the MLP's hidden layer."""
        return cast(nn.Linear, self.mlp["c_fc"]).out_features

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the block's frozen projections to tokens [..., M, D]: keys and values [..., heads, M, D / heads]."""
        width = x.shape[-1]
        kv = F.linear(self.ln_1(x), self.attn.in_proj_weight[width:], self.attn.in_proj_bias[width:])
        k, v = kv.chunk(2, -1)
        return self.split(k), self.split(v)

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


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Transformer(nn.Module):
    def __init__(self, blocks: list[Block]):
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)


class Tower(nn.Module, ABC):
    """`embed` turns the input into tokens, the blocks transform them, `read` selects the token for frame or text."""

    transformer: Transformer
    positional_embedding: nn.Parameter
    width: int
    whole: str = ""  # why a tower has no blocks to change, if it has none

    @property
    def blocks(self) -> list[Block]:
        return cast(list[Block], list(self.transformer.resblocks))

    @property
    def layers(self) -> int:
        """The number of blocks."""
        return len(self.transformer.resblocks)

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
            x = block(x, layer, tuner, context, *self.attended(x, context, last=layer == self.layers - 1))
        return self.head(x, context, tuner) if stop == self.all and start < stop else x

    def attended(self, x: Tensor, context: Context, last: bool) -> tuple[Tensor | None, Callable | None]:
        """Return a block's attention mask and its `pick`: in the last block, the token that the head reads."""
        mask = self.mask(x)
        if not last:
            return mask, None
        mask = None if mask is None else self.read(mask.expand(len(x), -1, -1), context)[:, None]
        return mask, lambda tokens: self.read(tokens, context)

    def head(self, x: Tensor, context: Context, tuner: Tuner) -> Tensor:
        """Project the token that the head reads, [..., 1, D], into the joint space: embeddings [..., E]."""
        h = tuner.edit(self.layers, "ln_post", self.norm(x[..., 0, :]), None, context)
        return tuner.edit(self.layers, "joint", h @ self.projection, h, context)

    def project(self, x: Tensor) -> Tensor:
        """Project tokens [..., D] into the joint space [..., E]."""
        return self.norm(x) @ self.projection

    def mask(self, x: Tensor) -> Tensor | None:
        """Return the mask to add to the attention scores of tokens x; None: every token attends to every other."""
        return None

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Turn the tower's input into the tokens of position 0."""

    @abstractmethod
    def read(self, x: Tensor, context: Context) -> Tensor:
        """Select from [..., tokens, D] the token that represents the frame or the text, [..., 1, D]."""

    @abstractmethod
    def norm(self, x: Tensor) -> Tensor:
        """Apply the norm before the projection."""

    @property
    @abstractmethod
    def projection(self) -> Tensor:
        """The linear map into the joint space, [D, E]."""


class VideoTower(Tower):
    """Frames [B, T, size, size, 3] uint8 -> tokens [B, T, 1 + patches, D] -> frame embeddings [B, T, E]."""

    mean: Tensor
    std: Tensor

    def __init__(self, embed_dim: int, vision: dict, preprocess: dict, activation: nn.Module):
        super().__init__()
        width, patch = vision["width"], vision["patch_size"]
        self.size, self.grid = vision["image_size"], vision["image_size"] // patch
        self.width = width
        self.heads = width // vision.get("head_width", 64)
        eps = (vision.get("norm_kwargs") or {}).get("eps", 1e-5)
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(self.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width, eps=eps)
        ratio = vision.get("mlp_ratio", 4.0)
        self.transformer = Transformer(
            [Block(width, self.heads, ratio, activation, eps) for _ in range(vision["layers"])]
        )
        self.ln_post = nn.LayerNorm(width, eps=eps)
        self.proj = nn.Parameter(torch.zeros(width, embed_dim))
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preprocess[name]).view(3, 1, 1), persistent=False)

    def embed(self, x: Tensor) -> Tensor:
        batch, frames = x.shape[:2]
        x = x.flatten(0, 1).movedim(-1, 1).to(self.mean.dtype).div(255)
        x = self.conv1(x.sub(self.mean).div(self.std)).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        return self.ln_pre(x + self.positional_embedding.to(x.dtype)).unflatten(0, (batch, frames))

    def read(self, x: Tensor, context: Context) -> Tensor:
        return x[..., :1, :]

    def norm(self, x: Tensor) -> Tensor:
        return self.ln_post(x)

    @property
    def projection(self) -> Tensor:
        return self.proj


class TextTower(Tower):
    """Token ids [B, W] -> tokens [B, W, D] -> text embeddings [B, E], read at the end token (position length - 1)."""

    causal: Tensor

    def __init__(self, embed_dim: int, text: dict, activation: nn.Module):
        super().__init__()
        width = text["width"]
        self.width, self.heads = width, text["heads"]
        eps = (text.get("norm_kwargs") or {}).get("eps", 1e-5)
        self.token_embedding = nn.Embedding(text["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.zeros(text["context_length"], width))
        ratio = text.get("mlp_ratio", 4.0)
        self.transformer = Transformer(
            [Block(width, self.heads, ratio, activation, eps) for _ in range(text["layers"])]
        )
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.text_projection = nn.Parameter(torch.zeros(width, embed_dim))
        causal = torch.full((text["context_length"],) * 2, -math.inf).triu(1)
        self.register_buffer("causal", causal, persistent=False)

    def mask(self, x: Tensor) -> Tensor:
        return self.causal[: x.shape[1], : x.shape[1]]

    def embed(self, x: Tensor) -> Tensor:
        return self.token_embedding(x.long()) + self.positional_embedding[: x.shape[1]]

    def read(self, x: Tensor, context: Context) -> Tensor:
        end = (context.length - 1).view(-1, *[1] * (x.ndim - 1))
        return x.gather(-2, end.expand(*x.shape[:-2], 1, x.shape[-1]))

    def norm(self, x: Tensor) -> Tensor:
        return self.ln_final(x)

    @property
    def projection(self) -> Tensor:
        return self.text_projection


class Clip(nn.Module):
    """Both towers and the logit scale, built from an open_clip model config and its preprocessing (config.json)."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        activation = QuickGELU() if model.get("quick_gelu") else nn.GELU()
        self.visual = VideoTower(model["embed_dim"], model["vision_cfg"], config["preprocess"], activation)
        self.text = TextTower(model["embed_dim"], model["text_cfg"], activation)
        self.embed_dim = model["embed_dim"]
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias: Tensor | None = None

    @property
    def weights(self) -> nn.Module:
        """The module whose state is the file weights.safetensors."""
        return self

    def logits(self, similarity: Tensor) -> Tensor:
        """Cosines as the pretraining's loss reads them: scaled, and shifted where the model has a bias."""
        scaled = self.logit_scale.exp() * similarity
        return scaled if self.logit_bias is None else scaled + self.logit_bias

    def freeze(self) -> "Clip":
        """Turn off gradients and training mode; return the same object."""
        return self.requires_grad_(False).eval()
