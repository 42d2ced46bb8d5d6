"""Video towers that are timm's VisionTransformer: SigLIP, SigLIP 2 and the ViTs of MobileCLIP.

SigLIP has no [CLS] token: its head attends to all patches with one learnt query.
"""

from typing import Any

from torch import Tensor

from rap.clip.towers import Block, VideoTower


class TimmBlock(Block):
    """`inner`: timm's Block."""

    def __init__(self, inner: Any):
        super().__init__()
        self.inner = inner
        self.heads = self.inner.attn.num_heads

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        mlp, attn = self.inner.mlp, self.inner.attn
        return {
            "qkv": (attn.qkv.in_features, attn.qkv.out_features),
            "out": (attn.proj.in_features, attn.proj.out_features),
            "fc": (mlp.fc1.in_features, mlp.fc1.out_features),
            "proj": (mlp.fc2.in_features, mlp.fc2.out_features),
        }

    def ln_1(self, x: Tensor) -> Tensor:
        return self.inner.norm1(x)

    def ln_2(self, x: Tensor) -> Tensor:
        return self.inner.norm2(x)

    def joined(self) -> tuple[Tensor, Tensor | None]:
        return self.inner.attn.qkv.weight, self.inner.attn.qkv.bias

    def merge(self, x: Tensor) -> Tensor:
        return self.inner.attn.norm(super().merge(x))

    def out(self, a: Tensor) -> Tensor:
        return self.inner.attn.proj(a)

    def after_attention(self, x: Tensor) -> Tensor:
        return self.inner.ls1(x)

    def fc(self, h: Tensor) -> Tensor:
        return self.inner.mlp.fc1(h)

    def activated(self, h: Tensor) -> Tensor:
        return self.inner.mlp.norm(self.inner.mlp.act(h))

    def proj(self, h: Tensor) -> Tensor:
        return self.inner.mlp.fc2(h)

    def after_mlp(self, x: Tensor) -> Tensor:
        return self.inner.ls2(x)


class TimmVideo(VideoTower):
    """`inner`: open_clip's TimmModel; its `trunk` is timm's model."""

    block: type[TimmBlock] = TimmBlock

    def __init__(self, inner: Any, preprocess: dict):
        super().__init__()
        self.inner = inner
        trunk = inner.trunk
        self.size, self.grid = preprocess["size"], trunk.patch_embed.grid_size[0]
        self.width = self.pooled_width = trunk.embed_dim
        self.class_tokens = trunk.num_prefix_tokens
        self.reads_one = trunk.attn_pool is None and trunk.global_pool == "token"
        self._blocks = tuple(self.block(block) for block in trunk.blocks)  # registered in `inner`
        self.heads = self._blocks[0].heads
        self.set_normalisation(preprocess)

    @property
    def trunk(self) -> Any:
        return self.inner.trunk

    @property
    def blocks(self) -> list[Block]:
        return list(self._blocks)

    def embed(self, x: Tensor) -> Tensor:
        tokens = self.trunk._pos_embed(self.trunk.patch_embed(self.normalised(x)))
        return self.trunk.norm_pre(tokens).unflatten(0, x.shape[:2])

    def pooled(self, x: Tensor) -> Tensor:
        h = self.trunk.norm(x.flatten(0, -3))
        return self.trunk.fc_norm(self.trunk.pool(h)).unflatten(0, x.shape[:-2])

    def joint(self, h: Tensor) -> Tensor:
        return self.inner.head(self.trunk.head(h))
