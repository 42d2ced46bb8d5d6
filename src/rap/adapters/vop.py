"""VoP: prompts for video, one set per frame position, and prompts for text."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from rap.adapters.base import Adapter
from rap.adapters.layers import at_frames
from rap.adapters.registry import register
from rap.adapters.vpt import Prompts
from rap.clip.towers import Clip, Context
from rap.params import Section


class Options(Section):
    video: Annotated[int, Field(gt=0)] = 4  # prompts per frame position and block
    text: Annotated[int, Field(gt=0)] = 4  # prompts per block


class Positions(Prompts):
    """A set of prompts for every frame position [T, P, D], between which clips of another length interpolate."""

    def __init__(self, tower, count: int, frames: int):
        super().__init__(tower, count, (frames,))
        self.frames = frames

    def prompts(self, layer: int, context: Context) -> Tensor:
        tokens = self.tokens[layer]
        return at_frames(tokens.flatten(1), context.length, self.frames).unflatten(-1, tokens.shape[1:])


@register("vop", identity=False, vop=Options)
def build(clip: Clip, frames: int, vop: Options) -> Adapter:
    """Position-specific video prompts and text prompts, deep (VoP^P, Huang et al. 2023)

    The paper's context- and function-specific prompts are not here.
    Parameters: T P D a block of the video tower, P_t D_t a block of the text tower.
    """
    return Adapter(Positions(clip.visual, vop.video, frames), Prompts(clip.text, vop.text))
