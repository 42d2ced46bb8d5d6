"""Towers of open_clip that differ from CLIP's: its VisionTransformer and its TextTransformer with their options.

Examples: CLIPA (no norm before the blocks, average pooling), CoCa (attentional pooling; a [CLS] token that ends the
text), SigLIP's text (no causal mask, read at the last position). The modules are open_clip's own; these classes run
them in parts.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from rap.clip.towers import Block, Context, TextTower, VideoTower


class VariantBlock(Block):
    """`inner`: open_clip's ResidualAttentionBlock."""

    def __init__(self, inner: Any):
        super().__init__()
        self.inner = inner
        self.heads = self.inner.attn.num_heads

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        hidden, width = self.inner.mlp.c_fc.weight.shape
        return {"qkv": (width, 3 * width), "out": (width, width), "fc": (width, hidden), "proj": (hidden, width)}

    def ln_1(self, x: Tensor) -> Tensor:
        return self.inner.ln_1(x)

    def ln_2(self, x: Tensor) -> Tensor:
        return self.inner.ln_2(x)

    def joined(self) -> tuple[Tensor, Tensor]:
        return self.inner.attn.in_proj_weight, self.inner.attn.in_proj_bias

    def out(self, a: Tensor) -> Tensor:
        return self.inner.attn.out_proj(a)

    def after_attention(self, x: Tensor) -> Tensor:
        return self.inner.ls_1(x)

    def fc(self, h: Tensor) -> Tensor:
        return self.inner.mlp.c_fc(h)

    def activated(self, h: Tensor) -> Tensor:
        return self.inner.mlp.gelu(h)

    def proj(self, h: Tensor) -> Tensor:
        return self.inner.mlp.c_proj(h)

    def after_mlp(self, x: Tensor) -> Tensor:
        return self.inner.ls_2(x)


class VariantVideo(VideoTower):
    """`inner`: open_clip's VisionTransformer."""

    def __init__(self, inner: Any, preprocess: dict):
        super().__init__()
        self.inner = inner
        self.size, self.grid = preprocess["size"], self.inner.grid_size[0]
        self.width = self.inner.transformer.width
        self.pooled_width = self.inner.ln_post.normalized_shape[0]
        self.reads_one = self.inner.attn_pool is None and self.inner.pool_type == "tok"
        self._blocks = tuple(VariantBlock(block) for block in self.inner.transformer.resblocks)  # registered in `inner`
        self.heads = self._blocks[0].heads
        self.set_normalisation(preprocess)

    @property
    def blocks(self) -> list[Block]:
        return list(self._blocks)

    def embed(self, x: Tensor) -> Tensor:
        return self.inner._embeds(self.normalised(x)).unflatten(0, x.shape[:2])

    def pooled(self, x: Tensor) -> Tensor:
        return self.inner._pool(x.flatten(0, -3))[0].unflatten(0, x.shape[:-2])

    def joint(self, h: Tensor) -> Tensor:
        return h if self.inner.proj is None else h @ self.inner.proj

    def project(self, x: Tensor) -> Tensor:
        if self.inner.pool_type == "avg":  # the average excludes the first token
            return self.joint(self.inner.ln_post(x))
        return super().project(x)


class VariantText(TextTower):
    """`model`: open_clip's CLIP, which holds the parts of its text tower, or a model with a text tower as `text`."""

    def __init__(self, model: Any):
        super().__init__()
        inner = getattr(model, "text", model)
        self.token_embedding = inner.token_embedding
        self.positional_embedding = inner.positional_embedding
        self.transformer = inner.transformer
        self.ln_final = inner.ln_final
        self.text_projection = inner.text_projection
        self.cls_emb = getattr(inner, "cls_emb", None)
        self.class_tokens = int(self.cls_emb is not None)
        self.causal = inner.attn_mask is not None
        self.width = self.pooled_width = inner.transformer.width
        pool = getattr(inner, "pool_type", None) or inner.text_pool_type
        self.words = None if self.causal and pool == "argmax" and not self.class_tokens else inner.context_length
        self._blocks = tuple(VariantBlock(block) for block in inner.transformer.resblocks)  # registered above
        self.heads = self._blocks[0].heads

    @property
    def blocks(self) -> list[Block]:
        return list(self._blocks)

    def embed(self, x: Tensor) -> Tensor:
        tokens = self.token_embedding(x.long())
        if self.cls_emb is not None:
            tokens = torch.cat([tokens, self.cls_emb.expand(len(x), 1, -1)], dim=1)
        return tokens + self.positional_embedding[: tokens.shape[1]]

    def mask(self, x: Tensor, context: Context) -> Tensor | None:
        if not self.causal:
            return None
        words = torch.arange(x.shape[1], device=x.device)
        allowed = words <= words[:, None]
        if self.cls_emb is not None:  # CoCa's padding mask is shifted by one position, and hides [CLS] from itself
            allowed = allowed & (words <= context.length[:, None])[:, None]
        return torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).masked_fill(~allowed, -torch.inf)

    def read(self, x: Tensor, context: Context) -> Tensor:
        return x[..., -1:, :] if self.cls_emb is not None else super().read(x, context)

    def pooled(self, x: Tensor) -> Tensor:
        return self.ln_final(x[..., 0, :])

    def joint(self, h: Tensor) -> Tensor:
        if self.text_projection is None:
            return h
        linear = isinstance(self.text_projection, nn.Linear)
        return self.text_projection(h) if linear else h @ cast(Tensor, self.text_projection)
