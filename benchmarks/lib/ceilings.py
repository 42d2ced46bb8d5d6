"""The highest rates of this machine, measured: matrix products at a backbone's shapes, and copies in memory.

A floor is the time of a piece of work at these rates: for its arithmetic or for its bytes, whichever is longer. It
counts matrix products, convolutions and attention, and only the bytes that must be read or written.
"""

import math
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from lib import turns
from rap.clip.towers import Clip, Tower

ROWS = {"cpu": 1 << 12, "cuda": 1 << 16}  # tokens in a product: enough for the full rate
BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}  # bytes of a copy: more than any processor cache
DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Ceilings:
    """`flops` of matrix products per second, by dtype; `bandwidth` in bytes per second, read and written together."""

    flops: dict[str, float]
    bandwidth: float

    def floor(self, flops: float, bytes: float = 0, dtype: str = "float32") -> float:
        """The minimum seconds for this arithmetic and these bytes."""
        return max(flops / self.flops[dtype], bytes / self.bandwidth)

    def sentence(self) -> str:
        rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in self.flops.items())
        return f"Ceilings: {rates}; memory copies at {self.bandwidth / 1e9:,.0f} GB/s, read and written bytes together."

    def figures(self) -> dict:
        return asdict(self)


def measure(clip: Clip, repeats: int = 15) -> Ceilings:
    """The best of `repeats` turns at the shapes of the video tower's blocks, on the device of the weights."""
    device = clip.logit_scale.device
    rates = {str(dtype).removeprefix("torch."): rate(shapes(clip.visual), dtype, device, repeats) for dtype in DTYPES}
    return Ceilings(rates, bandwidth(device, repeats))


def shapes(tower: Tower) -> list[tuple[int, int]]:
    """Inputs and outputs of each linear map of a block."""
    return list(tower.blocks[0].sizes.values())


def rate(shapes: list[tuple[int, int]], dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """Floating-point operations per second over one product of each shape."""
    rows = ROWS[device.type]
    pairs = [(random(rows, n, dtype, device), random(n, outputs, dtype, device)) for n, outputs in shapes]
    seconds = best(lambda: [torch.mm(a, b) for a, b in pairs], repeats)
    return sum(2 * rows * math.prod(shape) for shape in shapes) / seconds


def bandwidth(device: torch.device, repeats: int) -> float:
    """Bytes per second of a copy in the device's memory, read and written bytes together."""
    source = torch.zeros(BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / best(partial(target.copy_, source), repeats)


def best(work, repeats: int) -> float:
    return min(turns.take({"": work}, repeats, "ceilings")[""])


def random(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(rows, columns, device=device).to(dtype)
