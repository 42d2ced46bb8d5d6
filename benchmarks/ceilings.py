"""What this device can do at most, measured: matrix products at a backbone's shapes, and copies in memory.

    python benchmarks/ceilings.py [--backbone ViT-B-32]

prints them, in half a minute. The other benchmarks measure them on the way, and print beside each figure its floor: the
seconds that its arithmetic and its bytes take at these ceilings, the larger of the two. A floor counts matrix products,
convolutions and attention, and of the bytes those alone that must be read: weights and the input.
"""

import math
from dataclasses import dataclass
from functools import partial

import synthetic
import torch
import turns
import typer
from torch import Tensor

from rap.clip.towers import Clip, Tower

ROWS = {"cpu": 1 << 12, "cuda": 1 << 16}  # tokens in a product: enough for the full rate
BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}  # copied at a time: more than any cache holds
DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Ceilings:
    """`flops` a second of matrix products, by dtype; `bandwidth` in bytes a second, read and written ones together."""

    flops: dict[str, float]
    bandwidth: float

    def floor(self, flops: float, bytes: float = 0, dtype: str = "float32") -> float:
        """Seconds below which so much arithmetic and so many bytes cannot be done."""
        return max(flops / self.flops[dtype], bytes / self.bandwidth)


def measure(clip: Clip, repeats: int = 15) -> Ceilings:
    """The best of `repeats` turns, at the shapes of the video tower's blocks, on the device of the weights."""
    device = clip.logit_scale.device
    rates = {str(dtype).removeprefix("torch."): rate(shapes(clip.visual), dtype, device, repeats) for dtype in DTYPES}
    return Ceilings(rates, bandwidth(device, repeats))


def shapes(tower: Tower) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear maps of a block."""
    block = tower.transformer.resblocks[0]
    maps = (block.attn.in_proj_weight, block.attn.out_proj.weight, block.mlp["c_fc"].weight, block.mlp["c_proj"].weight)
    return [weight.T.shape for weight in maps]


def rate(shapes: list[tuple[int, int]], dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    """Floating-point operations a second over one product of each shape."""
    rows = ROWS[device.type]
    pairs = [
        (random(rows, inputs, dtype, device), random(inputs, outputs, dtype, device)) for inputs, outputs in shapes
    ]
    seconds = best(lambda: [torch.mm(a, b) for a, b in pairs], repeats)
    return sum(2 * rows * math.prod(shape) for shape in shapes) / seconds


def bandwidth(device: torch.device, repeats: int) -> float:
    count = BYTES[device.type]
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / best(partial(target.copy_, source), repeats)


def best(work, repeats: int) -> float:
    return min(turns.take({"": work}, repeats, "ceilings")[""])


def random(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(rows, columns, device=device).to(dtype)


def sentence(found: Ceilings) -> str:
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in found.flops.items())
    return f"Ceilings: {rates}; memory copies at {found.bandwidth / 1e9:,.0f} GB/s, read and written bytes together."


def main(backbone: str = "ViT-B-32") -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(sentence(measure(synthetic.random_clip(backbone).to(device))))


if __name__ == "__main__":
    typer.run(main)
