"""RAP: LoRM and ASA together."""

from rap.adapters.asa import ASA
from rap.adapters.asa import Options as AsaOptions
from rap.adapters.base import Adapter, Stack
from rap.adapters.layers import text_tuner
from rap.adapters.lorm import LoRM
from rap.adapters.lorm import Options as LormOptions
from rap.adapters.registry import register
from rap.clip.towers import Clip


@register("rap", lorm=LormOptions, asa=AsaOptions)
def build(clip: Clip, frames: int, lorm: LormOptions, asa: AsaOptions) -> Adapter:
    """RAP: low-rank modulation and asynchronous self-attention (Cao et al., ACL 2024 Findings)

    Parameters: those of LoRM and of ASA in the video tower; those of the text tower once, as set by `lorm.text`.
    """
    video = Stack(LoRM(clip.visual, frames, lorm), ASA(clip.visual, frames, asa))
    return Adapter(video, text_tuner(clip, lorm.text))
