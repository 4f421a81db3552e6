"""Every test of a kernel runs on each instruction set of this machine, or on the forced one."""

import os
from collections.abc import Iterator

import pytest
import torch

from dlrm.ops import build, cpu
from dlrm.ops.choice import choices

FORCED = os.environ.get("DLRM_KERNELS")


@pytest.fixture(params=[FORCED] if FORCED in build.ISAS else list(build.ISAS), scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[object]:
    """The compiled kernels of one instruction set."""
    before = cpu.instruction_set()
    reason = cpu.use(request.param)
    if reason is not None:
        pytest.skip(reason)
    yield cpu
    # Where none were loaded, those that other tests of this process would have taken.
    cpu.use(before or (FORCED if FORCED in build.ISAS else build.supported()[0]))


@pytest.fixture(autouse=True)
def no_choices_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was chosen with one instruction set is no choice of the tests after it."""
    monkeypatch.setattr(choices, "_chosen", {})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small inputs are fastest on one thread; tests of threads set their own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
