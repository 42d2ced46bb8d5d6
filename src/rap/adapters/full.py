"""Full fine-tuning: every weight of both towers."""

import copy

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import INPUT, Clip, Tuner


class Whole(Tuner):
    """Touches the tower from its input on, so that nothing can be cached."""

    first_block = INPUT


def whole(clip: Clip) -> Adapter:
    """A copy of the backbone to train, the logit scale excepted: it is frozen for every method (DESIGN section 4)."""
    own = copy.deepcopy(clip).requires_grad_(True)
    own.logit_scale.requires_grad_(False)
    return Adapter(Whole(), Whole(), own)


@register("full")
def build(clip: Clip, frames: int) -> Adapter:
    """Full fine-tuning of both towers (CLIP4Clip-meanP, Luo et al. 2021)

    Parameters: all of CLIP but the logit scale.
    """
    return whole(clip)
