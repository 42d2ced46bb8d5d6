"""VoP: one set of video prompts per frame position, and text prompts."""

from torch import Tensor

from rap.adapters.base import Adapter
from rap.adapters.layers import at_frames
from rap.adapters.registry import register
from rap.adapters.vpt import Prompts
from rap.clip.towers import Clip, Context, Tower
from rap.params import Count, Section


class Options(Section):
    video: Count = 4  # prompts per frame position and block
    text: Count = 4  # prompts per block


class Positions(Prompts):
    """One set of prompts per frame position, [T, P, D], interpolated for clips of another length."""

    def __init__(self, tower: Tower, count: int, frames: int):
        super().__init__(tower, count, (frames,))

    def prompts(self, layer: int, x: Tensor, context: Context) -> Tensor:
        tokens = self.tokens[layer]
        return at_frames(tokens.flatten(1), context.length, x.shape[1]).unflatten(-1, tokens.shape[1:])


@register("vop", identity=False, vop=Options)
def build(clip: Clip, frames: int, vop: Options) -> Adapter:
    """Position-specific video prompts and text prompts, deep (VoP^P, Huang et al. 2023)

    Does not include the paper's context- and function-specific prompts.
    Parameters: T P D per block of the video tower, P_t D_t per block of the text tower.
    """
    return Adapter(Positions(clip.visual, vop.video, frames), Prompts(clip.text, vop.text))
