"""Zero-shot CLIP: trains nothing."""

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Clip


@register("none", blocks=lambda: False)
def build(clip: Clip, frames: int) -> Adapter:
    """Zero-shot: frozen CLIP, frame embeddings averaged (meanP of CLIP4Clip, Luo et al. 2021)"""
    return Adapter()
