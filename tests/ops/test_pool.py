"""The kernels' threads: whoever calls, forks, exits or is alone gets the same bits."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

WEIGHT_ROWS, DIM, LOOKUPS = 1000, 16, 20_000


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and rows of it, enough that several threads look them up."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(WEIGHT_ROWS, DIM, generator=generator)
    return weight, torch.randint(WEIGHT_ROWS, (LOOKUPS,), generator=generator)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_chunk_is_done_once_by_any_number_of_threads(kernels, threads):
    torch.set_num_threads(threads)
    for seed in range(20):
        weight, rows = drawn(seed)
        grad = torch.ones(LOOKUPS, DIM)
        assert torch.equal(kernels.lookup(weight, rows), weight[rows])
        sums = torch.zeros_like(weight)
        kernels.sgd_update(sums, rows, grad, -1.0)
        assert torch.equal(sums[:, 0], torch.bincount(rows, minlength=WEIGHT_ROWS).float())


def test_several_callers_at_once_get_what_one_gets(kernels):
    torch.set_num_threads(3)
    inputs = [drawn(seed) for seed in range(200)]
    with ThreadPoolExecutor(6) as callers:
        outputs = list(callers.map(lambda pair: kernels.lookup(*pair), inputs))
    for (weight, rows), out in zip(inputs, outputs, strict=True):
        assert torch.equal(out, weight[rows])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_threads_of_its_own(kernels):
    torch.set_num_threads(2)
    weight, rows = drawn(0)
    expected = kernels.lookup(weight, rows)
    child = os.fork()
    if child == 0:
        same = [torch.equal(kernels.lookup(weight, rows), expected) for _ in range(50)]
        os._exit(0 if all(same) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(kernels.lookup(weight, rows), expected)


SCRIPT = """
import threading
import torch
from dlrm.ops.cpu import library
assert library.available() is None
weight, rows = torch.ones(1000, 16), torch.arange(20000) % 1000
out = torch.empty(20000, 16)
given = weight.data_ptr(), 0, rows.data_ptr(), 20000, 16, out.data_ptr(), 4
def forever():
    while True:
        library.native.lookup(*given)
threading.Thread(target=forever, daemon=True).start()
for _ in range(200):
    library.native.lookup(*given)
"""
"""Its threads call a kernel and nothing of torch: where Python ends a daemon thread on its way back
from an operation of torch, the process is aborted, without any kernel of ours."""


def test_a_process_ends_while_its_threads_work():
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, "")
