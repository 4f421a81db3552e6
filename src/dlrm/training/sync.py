"""What all processes of a run must agree on: whether to stop, and the loss of whole batches."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from dlrm.parallel.world import World


def sync_stop(world: World, stop: bool) -> Callable[[], bool]:
    """Send whether this process was asked to stop, and go on.

    Args:
        world: The processes of the run, all of which call this in each step.
        stop: Whether this one was asked.

    Returns:
        What waits for the others, not for a device, and returns whether any was asked: the same
        everywhere, so that all save and stop after the same step.

    """
    if world.size == 1:
        return lambda: stop
    # On the CPU, whatever the device: to read it there is not to wait for a step.
    flag = torch.tensor([stop], dtype=torch.int32)
    work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=world.group, async_op=True)

    def wait() -> bool:
        assert work is not None
        work.wait()
        return bool(flag)

    return wait


def sync_loss(world: World, loss: Tensor) -> float:
    """Return the sum of what each process has of a loss, a scalar, the same everywhere."""
    return world.sum(loss.cpu()).item()
