"""A job's arithmetic has one order, however its threads are scheduled."""

import torch

from rap.adapters.lorm import interpolate
from rap.device import setup
from rap.params import Runtime


def test_gradients_of_a_table_are_summed_in_one_order():
    """Twenty times the same backward pass through indexing, on four threads: atomic sums give many results."""
    setup(Runtime(threads=4))
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(32, 8, 32, generator=generator) * 14
    weight = torch.randn(32, 8, 32, 4, generator=generator)
    seen = set()
    for _ in range(20):
        table = torch.zeros(15, 4, requires_grad=True)
        (interpolate(table, position) * weight).sum().backward()
        seen.add(table.grad.numpy().tobytes())
    setup(Runtime())
    assert len(seen) == 1
