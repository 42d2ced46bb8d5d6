"""BitFit: trains only the biases."""

from rap.adapters.base import Adapter, Stack
from rap.adapters.layers import Channels
from rap.adapters.registry import register
from rap.clip.towers import Clip, Tower

SITES = ("ln_1", "qkv", "out", "ln_2", "fc", "proj")  # every operation of a block that has a bias


def shifts(tower: Tower) -> Stack:
    """A shift after every biased operation of the blocks and after the last norm."""
    return Stack(Channels(tower, SITES, scale=False), Channels(tower, ("ln_post",), [tower.layers], scale=False))


@register("bias")
def build(clip: Clip, frames: int) -> Adapter:
    """Every bias of the blocks and of the last norm, both towers (BitFit, Ben Zaken et al. 2022)

    Each bias is trained as the difference from the frozen bias. The bias of the video tower's first norm equals a shift
    at the input of block 0, so training can start from the cache at depth 0.
    Parameters: for each tower 11 D per block and D for the last norm; D for the video tower's first norm.
    """
    first_norm = Channels(clip.visual, ("input",), [0], scale=False)
    return Adapter(Stack(first_norm, shifts(clip.visual)), shifts(clip.text))
