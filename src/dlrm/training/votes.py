"""What all processes must know of a step: the loss of the whole batch, and whether to stop."""

from collections.abc import Callable

import torch
import torch.distributed as dist

from dlrm.parallel.world import World


def votes(world: World, loss: float, stop: bool) -> Callable[[], tuple[float, bool]]:
    """Send this process' share of the loss, and whether it was asked to stop.

    Returns:
        What waits for the others and returns the sum of the losses, and whether any was asked: the
        same everywhere, so that all save and stop after the same step. Meanwhile the backward pass
        goes on.

    """
    if world.size == 1:
        return lambda: (loss, stop)
    said = torch.tensor([loss, float(stop)], dtype=torch.float64)
    work = dist.all_reduce(said, group=world.group, async_op=True)

    def wait() -> tuple[float, bool]:
        assert work is not None
        work.wait()
        return said[0].item(), bool(said[1])

    return wait
