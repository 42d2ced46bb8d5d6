"""A job's arithmetic is independent of thread scheduling; a training step does not wait for the GPU in every block."""

import subprocess
import sys

import pytest
import tiny
import torch
from shipped import shipped
from torch.utils._python_dispatch import TorchDispatchMode

from rap.adapters.layers import at_frames, interpolate
from rap.adapters.lorm import Options, build
from rap.features.cache import Batch
from rap.retrieval.model import Retriever
from rap.runtime.device import setup

CLAIM = """
import sys
from rap.runtime.device import claim
print(claim(("first", "second"), sys.argv[1]), flush=True)
sys.stdin.read()
"""


def test_gradients_of_a_table_are_summed_in_one_order():
    """The same backward pass through indexing, twenty times on four threads: atomic sums would differ."""
    setup(shipped("runtime", threads=4))
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(32, 8, 32, generator=generator) * 14
    weight = torch.randn(32, 8, 32, 4, generator=generator)
    seen = set()
    for _ in range(20):
        table = torch.zeros(15, 4, requires_grad=True)
        (interpolate(table, position) * weight).sum().backward()
        seen.add(table.grad.numpy().tobytes())
    setup(shipped("runtime"))
    assert len(seen) == 1


class Readings(TorchDispatchMode):
    """Counts the operations that make the host wait for its device: a value read into Python, or a dynamic shape."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def test_a_step_of_lorm_waits_for_its_device_only_once():
    clip = tiny.clip()
    model = Retriever(clip, build(clip, 4, Options(sites=("input", "ln_1", "ln_2", "ln_post"))))
    clips = Batch(torch.randn(2, 4, 17, 24), torch.tensor([4, 4]), 0)
    with Readings() as readings:
        model.video(clips).sum().backward()
    assert readings.count == 1


def test_the_cached_length_check_is_not_reused_for_another_batch():
    table = torch.arange(4.0)[:, None]
    for length, rows in (([4, 4], 1), ([4, 2], 2), ([4, 4], 1)):
        assert len(at_frames(table, torch.tensor(length), 4)) == rows


@pytest.mark.slow
def test_concurrent_jobs_claim_different_gpus_and_release_them_at_exit(tmp_path):
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]

    def start():
        job = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return job, job.stdout.readline().strip()

    first, second = start(), start()
    assert (first[1], second[1]) == ("0", "1")
    first[0].kill()
    first[0].wait()
    third = start()
    assert third[1] == "0"
    for job, _ in (second, third):
        job.communicate("")
