"""The accuracy that the original prints."""

from math import log

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.compat.batches import Data
from dlrm.compat.distributed import share_of
from dlrm.compat.flags import Flags
from dlrm.errors import DatasetError
from dlrm.parallel.world import World


class Thresholded(nn.Module):
    """`--loss-threshold` t keeps probabilities within [t, 1 - t], by clamping the logits."""

    def __init__(self, net: nn.Module, threshold: float):
        super().__init__()
        self.net = net
        self.bound = log(1 / threshold - 1)

    def forward(self, batch: Batch) -> Tensor:
        """Return the clamped logits (B, 1)."""
        return self.net(batch).clamp(-self.bound, self.bound)


def thresholded(flags: Flags, net: nn.Module) -> nn.Module:
    """Return what computes the logits (B, 1) that the original takes losses and accuracies of."""
    if 0.0 < flags.loss_threshold < 1.0:
        return Thresholded(net, flags.loss_threshold)
    return net


def correct(logits: Tensor, labels: Tensor) -> int:
    """Return how many probabilities round to their label; one of exactly 1/2 rounds to 0."""
    return int((logits.sigmoid().round() == labels).sum())


@torch.no_grad()
def measure_accuracy(flags: Flags, net: nn.Module, data: Data, world: World) -> float:
    """Return the share of test samples, of all processes, whose probability rounds to their label.

    As in the original, `--num-batches` limits the test data too.

    All processes call this, with the net that `thresholded` returned.
    """
    right = samples = 0
    for number, batch in enumerate(data.test.read(share=share_of(world))):
        if 0 < flags.num_batches <= number:
            break
        right += correct(net(batch), batch.labels)
        samples += sum(batch.parts or (len(batch),))
    if not samples:
        raise DatasetError("there are no test samples: the last day of the log is empty")
    return int(world.sum(torch.tensor(right))) / samples
