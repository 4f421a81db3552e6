"""A table and a layer to optimize, and the gradients of some steps."""

import torch
from torch import Tensor, nn

from dlrm.nn.embedding import EmbeddingCollection, materialize, parameter_groups
from dlrm.nn.layout import Layout
from dlrm.ops.storage import Storage
from dlrm.optim import OPTIMIZERS, SparseOptimizer
from dlrm.schema import Schema

OWN = "sign_sgd:SignSGD"
NAMES = (*OPTIMIZERS, OWN)
"""All optimizers of the catalogue, and one that is in no catalogue."""


class Net(nn.Module):
    """One table and one layer."""

    def __init__(
        self,
        rows: int = 10,
        dim: int = 3,
        storage: Storage = "fp32",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        layout = Layout.of(Schema.one_hot(0, [rows]))
        self.table = EmbeddingCollection(layout, dim, storage=storage)
        self.layer = nn.Linear(dim, 2)
        materialize(self)
        if dtype != torch.float32:
            self.to(dtype)

    @property
    def weight(self) -> nn.Parameter:
        """The table, (R, D)."""
        return self.table.weight

    def groups(self):
        return parameter_groups(self)

    def numbers(self) -> list[Tensor]:
        """A copy of all parameters: the table, then those of the layer."""
        return [p.detach().clone() for p in (self.weight, *self.layer.parameters())]


def net(storage: Storage = "fp32", dtype: torch.dtype = torch.float32, **sizes: int) -> Net:
    """A net whose first numbers are always the same, and fit into bfloat16."""
    torch.manual_seed(5)
    fresh = Net(storage=storage, dtype=dtype, **sizes)
    for p in fresh.parameters():
        p.data.copy_(p.detach().bfloat16())
    return fresh


def rows_of(step: int, net: Net, count: int = 6) -> Tensor:
    """The rows that a step looks up, some of them more than once."""
    generator = torch.Generator().manual_seed(step)
    # Not the last one.
    return torch.randint(0, net.weight.shape[0] - 1, (count,), generator=generator)


def backward(net: Net, step: int, rows: Tensor | None = None) -> Tensor:
    """Leave the gradients of a step in all parameters, and return the rows it looked up."""
    generator = torch.Generator().manual_seed(1000 + step)
    rows = rows_of(step, net) if rows is None else rows
    factor = torch.randn(len(rows), 2, generator=generator)
    dtype = next(net.layer.parameters()).dtype
    hidden = net.table.lookup(rows)
    (net.layer(hidden.to(dtype)).sin() * factor.to(dtype)).sum().backward()
    return rows


def train(net: Net, optimizer: SparseOptimizer, steps: int, first: int = 0) -> None:
    """Take some steps."""
    for step in range(first, first + steps):
        backward(net, step)
        optimizer.step()
        optimizer.zero_grad()
