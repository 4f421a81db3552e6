"""A model that takes the samples of each batch in another order: what rounding alone changes.

Its logits, loss and gradients are those of the model, but for the order in which samples are added
up, and for the last bits of its numbers. What is as different from the model as this is equal, as
far as floating point can tell.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged
from dlrm.models import ModelConfig
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema

NOISE = 2.0**-21
"""By what share dense numbers are off at most: some units of a float32's last place. The order
alone rounds by about as much as what it is to explain, and would turn a ReLU that several processes
turn in one training of many only."""


class Reordered(nn.Module):
    """`forward(batch) -> logits (B, K)`, in the order of the batch.

    Args:
        model: That computes them.
        seed: Seed of the orders, another one for each batch.

    """

    def __init__(self, model: nn.Module, seed: int):
        super().__init__()
        self.model = model
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        order = torch.randperm(len(batch), generator=self._generator).to(batch.labels.device)
        noise = torch.rand(batch.dense.shape, generator=self._generator).to(batch.dense) * 2 - 1
        other = reordered(batch, order)
        other = replace(other, dense=other.dense * (1 + NOISE * noise))
        return self.model(other)[order.argsort()]


@dataclass(frozen=True, slots=True)
class ReorderedConfig:
    """A model of the catalogue, reordered."""

    model: ModelConfig
    seed: int
    name: str = "reordered"

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> Reordered:
        """Return the model for data of this schema, see `dlrm.models.build`."""
        return Reordered(self.model.build(schema, dtype), self.seed)


def config_of(model: ModelConfig, seed: int) -> ModelConfig:
    """Return the config of a reordered model, for where any model goes."""
    return cast(ModelConfig, ReorderedConfig(model, seed))


def reordered(batch: Batch, order: Tensor) -> Batch:
    """Return the samples of a batch in another order.

    Args:
        batch: B samples.
        order: (B,), the number of the sample that comes first, second, ...

    """
    lists = batch.lists
    if lists is not None:
        shape = (len(batch), batch.num_lists)
        starts = lists.offsets[:-1].view(shape)[order].flatten()
        lengths = lists.lengths.view(shape)[order].flatten()
        offsets = torch.cat([lists.offsets.new_zeros(1), lengths.cumsum(0)])
        shift = (starts - offsets[:-1]).repeat_interleave(lengths)
        places = torch.arange(len(shift), device=shift.device) + shift
        lists = Jagged(lists.values[places], offsets)
    return Batch(
        batch.dense[order],
        batch.ids[order],
        batch.labels[order],
        lists,
        None if batch.weights is None else batch.weights[order],
    )
