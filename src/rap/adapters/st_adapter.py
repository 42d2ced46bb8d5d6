"""ST-Adapter: bottlenecks with a convolution over neighbouring frames."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.layers import Blocks, chosen, text_tuner
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tower, Tuner
from rap.params import Count, Section


class Options(Section):
    width: Count = 16
    reach: Annotated[int, Field(ge=0)] = 1  # frames on either side: the kernel has 2 reach + 1 frames
    blocks: Blocks = "all"

    model_config = ConfigDict(strict=False)


class Temporal(nn.Module):
    """x + up(GELU(conv(down(x)))). conv is depth-wise over time; `up` is zero at step 0: an identity."""

    def __init__(self, width: int, hidden: int, reach: int):
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.conv = nn.Conv1d(hidden, hidden, 2 * reach + 1, padding=reach, groups=hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """Tokens [B, T, N + 1, D]. Padded frames are zero in the convolution, like its padding at both ends."""
        batch, frames, tokens, _ = x.shape
        valid = torch.arange(frames, device=x.device) < length[:, None]
        h = self.down(x) * valid[:, :, None, None]
        h = self.conv(h.permute(0, 2, 3, 1).flatten(0, 1)).unflatten(0, (batch, tokens)).permute(0, 3, 1, 2)
        return x + self.up(F.gelu(h))


class Temporals(Tuner):
    """A temporal bottleneck at the input of the chosen blocks, for all tokens including [CLS]."""

    def __init__(self, tower: Tower, options: Options):
        super().__init__()
        blocks = chosen(options.blocks, tower)
        self.first_block = min(blocks)
        make = {str(layer): Temporal(tower.width, options.width, options.reach) for layer in blocks}
        self.parts = nn.ModuleDict(make)

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        found = site == "input" and str(layer) in self.parts
        return self.parts[str(layer)](x, context.length) if found else x


@register("st_adapter", st_adapter=Options)
def build(clip: Clip, frames: int, st_adapter: Options) -> Adapter:
    """Bottlenecks with a depth-wise convolution over time (ST-Adapter, Pan et al. 2022)

    The kernel is 1 x 1 in space; the activation follows the convolution. The text tower has the same tuner as in LoRM.
    Parameters per block: 2 D w + D + w for the bottleneck and w (2 reach + 2) for the convolution; 2 D_t in the text
    tower.
    """
    return Adapter(Temporals(clip.visual, st_adapter), text_tuner(clip, "scale"))
