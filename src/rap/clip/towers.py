"""A ViT CLIP whose two towers can be entered and left at any depth, and edited at named sites.

The arithmetic and the parameter names are those of open_clip's CLIP, so its weights load as they are.

Positions along a tower with L blocks: INPUT (-1) pixels or token ids; d in 0..L the tokens after d blocks; ALL (L + 1)
the embeddings in the joint space. `tower.run(x, a, b)` goes from position a to b; running a..d and then d..b performs
the very operations of a..b, which is why a cache at d changes nothing.

Of the tokens after L blocks one is read: [CLS] of a frame, the end of a text. The last block computes that one alone,
so it costs less than a third of another block, and position L holds one token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = -1
SITES = ("input", "ln_1", "qkv", "out", "ln_2", "fc", "proj")  # of a block
# and, with layer number L, "ln_post" after the norm of the head and "joint" after its projection


@dataclass
class Context:
    """What an edit may look at beside the tokens: `length` [B] valid frames or words, `query` [B, n, E] texts.

    An edit that puts words or frames in, or merges them, sets `length` to what there is then. The first that looks at
    the n texts of each clip makes n clips of it, side by side, and sets both: what is before it is shared by the texts.
    """

    tower: "Tower"
    length: Tensor
    query: Tensor | None = None


class Tuner(nn.Module):
    """What a method does inside one tower. This one does nothing.

    `first_block` is the lowest block it touches (math.inf: none); everything below is frozen and can be cached.
    `conditioned` is the lowest block whose result depends on the query (math.inf: none).
    """

    first_block: float = math.inf
    conditioned: float = math.inf

    def block(self, layer: int, block: "Block") -> "Block":
        """The block to run as number `layer`."""
        return block

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        """The value that goes on from a site; `source` is the input of the linear map at qkv, out, fc, proj and joint.

        At `input` the number of tokens and of frames may change. In the last block, out, ln_2, fc and proj hold the one
        token that is read.
        """
        return x

    def prompts(self, layer: int, context: Context) -> Tensor | None:
        """Tokens [1 or B, (1 or T,) P, D] that the block's attention sees beside the block's own, at its input."""
        return None

    def attend(self, layer: int, block: "Block", x: Tensor, q: Tensor, attended: Tensor, context: Context) -> Tensor:
        """What attention gives, [B, ..., heads, tokens, width / heads], from block input `x` and queries `q`.

        Of [B n, ...], if it looked at n texts of each clip.
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
        """Tokens after the block: all, or those that `pick` takes of [..., tokens, width]; `mask` fits them."""

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

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's own keys and values of further tokens [..., M, D], [..., heads, M, D / heads] each."""
        width = x.shape[-1]
        kv = F.linear(self.ln_1(x), self.attn.in_proj_weight[width:], self.attn.in_proj_bias[width:])
        k, v = kv.chunk(2, -1)
        return self.split(k), self.split(v)

    def extend(
        self, k: Tensor, v: Tensor, mask: Tensor | None, prompts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with those of `prompts` in front, which every token sees."""
        front = [x.expand(*k.shape[:-2], -1, -1) for x in self.keys_and_values(prompts)]
        mask = None if mask is None else F.pad(mask, (prompts.shape[-2], 0))
        return torch.cat([front[0], k], dim=-2), torch.cat([front[1], v], dim=-2), mask

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(-3, -2).flatten(-2)


def repeated(x: Tensor, count: int) -> Tensor:
    """Each row of x [B, ...] `count` times, side by side: [B count, ...]."""
    return x if count == 1 else x.repeat_interleave(count, dim=0)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; leading dimensions are flattened because the fast kernels take four."""
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


class Tower(nn.Module):
    """`embed` makes tokens of the input, blocks transform them, `read` picks the one that stands for frame or text."""

    transformer: Transformer
    width: int
    projection: Tensor

    @property
    def layers(self) -> int:
        return len(self.transformer.resblocks)

    @property
    def all(self) -> int:
        return self.layers + 1

    def run(self, x: Tensor, start: int, stop: int, context: Context, tuner: Tuner) -> Tensor:
        """Go from position `start` to position `stop`."""
        if start == INPUT and stop > INPUT:
            x, start = self.embed(x), 0
        for layer in range(start, min(stop, self.layers)):
            x = tuner.edit(layer, "input", x, None, context)
            block = tuner.block(layer, self.transformer.resblocks[layer])
            x = block(x, layer, tuner, context, *self.attended(x, context, last=layer == self.layers - 1))
        return self.head(x, context, tuner) if stop == self.all and start < stop else x

    def attended(self, x: Tensor, context: Context, last: bool) -> tuple[Tensor | None, Callable | None]:
        """The mask of a block, and the choice among its tokens: in the last one, that which is read."""
        mask = self.mask(x)
        if not last:
            return mask, None
        mask = None if mask is None else self.read(mask.expand(len(x), -1, -1), context)[:, None]
        return mask, lambda tokens: self.read(tokens, context)

    def head(self, x: Tensor, context: Context, tuner: Tuner) -> Tensor:
        """The token that is read, after all blocks, [..., 1, D] -> embeddings in the joint space [..., E]."""
        h = tuner.edit(self.layers, "ln_post", self.norm(x[..., 0, :]), None, context)
        return tuner.edit(self.layers, "joint", h @ self.projection, h, context)

    def mask(self, x: Tensor) -> Tensor | None:
        """What is added to the attention scores of tokens x; None: every token sees every other."""
        return None

    def read(self, x: Tensor, context: Context) -> Tensor:
        """Of [..., tokens, D], the token that stands for the frame or the text, [..., 1, D]."""
        raise NotImplementedError

    def norm(self, x: Tensor) -> Tensor:
        """The norm before the projection."""
        raise NotImplementedError


class VideoTower(Tower):
    """Frames [B, T, size, size, 3] uint8 -> tokens [B, T, 1 + patches, D] -> frame embeddings [B, T, E]."""

    def __init__(self, embed_dim: int, vision: dict, preprocess: dict, activation: nn.Module):
        super().__init__()
        width, patch = vision["width"], vision["patch_size"]
        self.grid = vision["image_size"] // patch
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

    def project(self, x: Tensor) -> Tensor:
        """Tokens [..., D] into the joint space, [..., E]."""
        return self.ln_post(x) @ self.proj


class TextTower(Tower):
    """Token ids [B, W] -> tokens [B, W, D] -> text embeddings [B, E], read at the end token (position length - 1)."""

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
    """Both towers and the logit scale, built from an open_clip model config and preprocessing (config.json)."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        activation = QuickGELU() if model.get("quick_gelu") else nn.GELU()
        self.visual = VideoTower(model["embed_dim"], model["vision_cfg"], config["preprocess"], activation)
        self.text = TextTower(model["embed_dim"], model["text_cfg"], activation)
        self.embed_dim = model["embed_dim"]
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def freeze(self) -> "Clip":
        return self.requires_grad_(False).eval()
