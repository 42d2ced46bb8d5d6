"""A control: RAP, trained and tested with the frames of each clip in a random order."""

from rap.adapters import rap
from rap.adapters.asa import Options as AsaOptions
from rap.adapters.base import Adapter
from rap.adapters.lorm import Options as LormOptions
from rap.adapters.registry import register
from rap.clip.towers import Clip


@register("shuffled", lorm=LormOptions, asa=AsaOptions)
def build(clip: Clip, frames: int, lorm: LormOptions, asa: AsaOptions) -> Adapter:
    """A control: RAP on clips whose frames are in a random order

    Parameters: those of RAP.
    """
    adapter = rap.build(clip, frames, lorm, asa)
    adapter.shuffled = True
    return adapter
