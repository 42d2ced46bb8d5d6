"""Video towers that are timm's Eva: EVA01, EVA02 and the Perception Encoder (PE-Core).

Most rotate queries and keys by the position of the patch, except [CLS]. EVA02 has gated MLPs and norms inside attention
and MLP; its largest model applies the norm after attention and MLP, not before.
"""

from typing import cast

import torch
from timm.layers import apply_rot_embed_cat
from timm.layers.mlp import GluMlp, SwiGLU
from timm.models.eva import EvaBlockPostNorm
from torch import Tensor

from rap.clip.timm_vit import TimmBlock, TimmVideo
from rap.clip.towers import Tower


class EvaBlock(TimmBlock):
    """`inner`: timm's EvaBlock or EvaBlockPostNorm."""

    @property
    def post_norm(self) -> bool:
        """Whether the norm follows attention and MLP."""
        return isinstance(self.inner, EvaBlockPostNorm)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        attn, mlp = self.inner.attn, self.inner.mlp
        width, inside = attn.proj.out_features, attn.proj.in_features
        hidden = 2 * mlp.fc1_g.out_features if isinstance(mlp, SwiGLU) else mlp.fc1.out_features
        return {
            "qkv": (width, 3 * inside),
            "out": (inside, width),
            "fc": (width, hidden),
            "proj": (mlp.fc2.in_features, width),
        }

    def ln_1(self, x: Tensor) -> Tensor:
        return x if self.post_norm else self.inner.norm1(x)

    def ln_2(self, x: Tensor) -> Tensor:
        return x if self.post_norm else self.inner.norm2(x)

    def joined(self) -> tuple[Tensor, Tensor | None]:
        attn = self.inner.attn
        if attn.qkv is None:
            weight = torch.cat([attn.q_proj.weight, attn.k_proj.weight, attn.v_proj.weight])
            query, value = attn.q_proj.bias, attn.v_proj.bias
        elif getattr(attn, "q_bias", None) is None:
            return attn.qkv.weight, attn.qkv.bias
        else:
            weight, query, value = attn.qkv.weight, attn.q_bias, attn.v_bias
        return weight, None if query is None else torch.cat([query, torch.zeros_like(query), value])

    def placed(self, q: Tensor, k: Tensor, tower: Tower) -> tuple[Tensor, Tensor]:
        attn, rope = self.inner.attn, cast(EvaVideo, tower).trunk.rope
        q, k = attn.q_norm(q), attn.k_norm(k)
        return (q, k) if rope is None else (self._rotated(q, rope.get_embed()), self._rotated(k, rope.get_embed()))

    def _rotated(self, x: Tensor, rope: Tensor) -> Tensor:
        fixed = self.inner.attn.num_prefix_tokens
        turned = apply_rot_embed_cat(x[..., fixed:, :], rope, half=self.inner.attn.rotate_half)
        return torch.cat([x[..., :fixed, :], turned], dim=-2).type_as(x)

    def after_attention(self, x: Tensor) -> Tensor:
        return self.inner.norm1(x) if self.post_norm else _scaled(x, self.inner.gamma_1)

    def fc(self, h: Tensor) -> Tensor:
        mlp = self.inner.mlp
        return torch.cat([mlp.fc1_g(h), mlp.fc1_x(h)], dim=-1) if isinstance(mlp, SwiGLU) else mlp.fc1(h)

    def activated(self, h: Tensor) -> Tensor:
        mlp = self.inner.mlp
        if isinstance(mlp, SwiGLU | GluMlp):
            gate, value = h.chunk(2, dim=-1)
            return mlp.norm(mlp.act(gate) * value)
        return super().activated(h)

    def after_mlp(self, x: Tensor) -> Tensor:
        return self.inner.norm2(x) if self.post_norm else _scaled(x, self.inner.gamma_2)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else scale * x


class EvaVideo(TimmVideo):
    block: type[TimmBlock] = EvaBlock

    def embed(self, x: Tensor) -> Tensor:
        tokens, _rope = self.trunk._pos_embed(self.trunk.patch_embed(self.normalised(x)))
        return self.trunk.norm_pre(tokens).unflatten(0, x.shape[:2])
