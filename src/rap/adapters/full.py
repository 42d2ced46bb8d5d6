"""Full fine-tuning: trains every weight of both towers."""

import copy

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import INPUT, Clip, Tuner


class Whole(Tuner):
    """Marks the whole tower as edited, so that training starts from its input, not from a cache."""

    first_block = INPUT


def whole(clip: Clip) -> Adapter:
    """A trainable copy of the backbone. The logit scale and bias stay frozen, as in every method."""
    own = copy.deepcopy(clip).requires_grad_(True)
    own.logit_scale.requires_grad_(False)
    if own.logit_bias is not None:
        own.logit_bias.requires_grad_(False)
    return Adapter(Whole(), Whole(), own)


@register("full")
def build(clip: Clip, frames: int) -> Adapter:
    """Full fine-tuning of both towers (CLIP4Clip-meanP, Luo et al. 2021)

    Parameters: all of CLIP except the logit scale and bias.
    """
    return whole(clip)
