"""The ViT of CLIP and its text transformer.

The arithmetic and the parameter names are those of open_clip's CLIP, so its weights load without conversion.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from rap.clip.towers import Block, Clip, Context, TextTower, VideoTower


class PlainBlock(Block):
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

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        hidden, width = cast(nn.Linear, self.mlp["c_fc"]).weight.shape
        return {"qkv": (width, 3 * width), "out": (width, width), "fc": (width, hidden), "proj": (hidden, width)}

    def joined(self) -> tuple[Tensor, Tensor]:
        return self.attn.in_proj_weight, self.attn.in_proj_bias

    def out(self, a: Tensor) -> Tensor:
        return self.attn.out_proj(a)

    def fc(self, h: Tensor) -> Tensor:
        return self.mlp["c_fc"](h)

    def activated(self, h: Tensor) -> Tensor:
        return self.mlp["gelu"](h)

    def proj(self, h: Tensor) -> Tensor:
        return self.mlp["c_proj"](h)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Transformer(nn.Module):
    def __init__(self, blocks: list[PlainBlock]):
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)


class PlainVideo(VideoTower):
    has_direction = True

    def __init__(self, embed_dim: int, vision: dict, preprocess: dict, activation: nn.Module):
        super().__init__()
        width, patch = vision["width"], vision["patch_size"]
        self.size, self.grid = vision["image_size"], vision["image_size"] // patch
        self.width = self.pooled_width = width
        self.heads = width // vision.get("head_width", 64)
        eps = (vision.get("norm_kwargs") or {}).get("eps", 1e-5)
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(self.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width, eps=eps)
        ratio = vision.get("mlp_ratio", 4.0)
        self.transformer = Transformer(
            [PlainBlock(width, self.heads, ratio, activation, eps) for _ in range(vision["layers"])]
        )
        self.ln_post = nn.LayerNorm(width, eps=eps)
        self.proj = nn.Parameter(torch.zeros(width, embed_dim))
        self.set_normalisation(preprocess)

    @property
    def blocks(self) -> list[Block]:
        return cast(list[Block], list(self.transformer.resblocks))

    def embed(self, x: Tensor) -> Tensor:
        batch, frames = x.shape[:2]
        x = self.conv1(self.normalised(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        return self.ln_pre(x + self.positional_embedding.to(x.dtype)).unflatten(0, (batch, frames))

    def pooled(self, x: Tensor) -> Tensor:
        return self.ln_post(x[..., 0, :])

    def joint(self, h: Tensor) -> Tensor:
        return h @ self.proj

    def toward(self, query: Tensor, layer: int) -> Tensor:
        block = cast(PlainBlock, self.blocks[layer])
        return query @ self.proj.T * self.ln_post.weight @ block.attn.out_proj.weight


class PlainText(TextTower):
    causal: Tensor

    def __init__(self, embed_dim: int, text: dict, activation: nn.Module):
        super().__init__()
        width = text["width"]
        self.width, self.pooled_width, self.heads = width, width, text["heads"]
        eps = (text.get("norm_kwargs") or {}).get("eps", 1e-5)
        self.token_embedding = nn.Embedding(text["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.zeros(text["context_length"], width))
        ratio = text.get("mlp_ratio", 4.0)
        self.transformer = Transformer(
            [PlainBlock(width, self.heads, ratio, activation, eps) for _ in range(text["layers"])]
        )
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.text_projection = nn.Parameter(torch.zeros(width, embed_dim))
        causal = torch.full((text["context_length"],) * 2, -math.inf).triu(1)
        self.register_buffer("causal", causal, persistent=False)

    @property
    def blocks(self) -> list[Block]:
        return cast(list[Block], list(self.transformer.resblocks))

    def mask(self, x: Tensor, context: Context) -> Tensor:
        return self.causal[: x.shape[1], : x.shape[1]]

    def embed(self, x: Tensor) -> Tensor:
        return self.token_embedding(x.long()) + self.positional_embedding[: x.shape[1]]

    def pooled(self, x: Tensor) -> Tensor:
        return self.ln_final(x[..., 0, :])

    def joint(self, h: Tensor) -> Tensor:
        return h @ self.text_projection


class Plain(Clip):
    """Built from an open_clip model config and its preprocessing (config.json), with random weights."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        activation = QuickGELU() if model.get("quick_gelu") else nn.GELU()
        self.visual = PlainVideo(model["embed_dim"], model["vision_cfg"], config["preprocess"], activation)
        self.text = PlainText(model["embed_dim"], model["text_cfg"], activation)
        self.embed_dim = model["embed_dim"]
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias = None
