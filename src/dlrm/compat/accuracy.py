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


def forward(flags: Flags, model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits (B,).

    `--loss-threshold` t keeps probabilities within [t, 1 - t]; clamping the logits does the same.
    """
    logits = model(batch)
    if 0.0 < flags.loss_threshold < 1.0:
        bound = log(1 / flags.loss_threshold - 1)
        return logits.clamp(-bound, bound)
    return logits


def correct(logits: Tensor, labels: Tensor) -> int:
    """Return how many probabilities round to their label; one of exactly 1/2 rounds to 0."""
    return int((logits.sigmoid().round() == labels).sum())


@torch.no_grad()
def measure_accuracy(flags: Flags, model: nn.Module, data: Data, world: World) -> float:
    """Return the share of test samples, of all processes, whose probability rounds to their label.

    As in the original, `--num-batches` limits the test data too.
    """
    right = samples = 0
    for number, batch in enumerate(data.test.read(share=share_of(world))):
        if 0 < flags.num_batches <= number:
            break
        right += correct(forward(flags, model, batch), batch.labels)
        samples += sum(batch.parts or (len(batch),))
    if not samples:
        raise DatasetError("there are no test samples: the last day of the log is empty")
    return int(world.sum(torch.tensor(right))) / samples
