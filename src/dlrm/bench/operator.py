"""What an operator is to a benchmark: what it is measured on, what it has to do, how it is run.

Inputs take turns, and so do results: when one comes round, it has left the cache. Caches keep some
of what they should have replaced, of twice their size a part is still found there: together, inputs
and results are `CACHES` times the last-level cache.
"""

import contextlib
import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from dlrm import optim
from dlrm.bench import batches
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.errors import ConfigError, unknown
from dlrm.nn.embedding import EmbeddingCollection, Storage, materialize
from dlrm.nn.initializer import constant
from dlrm.nn.layout import LISTS, ONE_HOT, Block, Layout
from dlrm.nn.precision import ComputeDtype
from dlrm.parallel.world import ALONE, World
from dlrm.planning.work import Ids, Shape, Work
from dlrm.schema import Feature, Schema, Table

T = TypeVar("T")

CACHES = 4
"""Times the last-level cache that all inputs and results are."""
LEAST, MOST = 2, 16_384
"""Inputs; more than so many tiny ones are not made, which then are colder than real ones only in
what they look up."""
CALLS = {
    "lookup": 27, "update": 90, "interaction": 53, "mlp": 67, "loss": 32, "dense_update": 29,
    "loader": 9, "exchange": 1000,
}  # fmt: skip
"""What a run on a single sample takes, in smallest operations of torch: what Python, autograd and
starting threads take too; measured."""
LAYER_CALLS = 14
"""What each layer of an MLP adds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """Sizes and types of the inputs of an operator; each operator says which of these it uses."""

    batch: int = 2048
    """B, samples."""
    tables: int = 8
    """T."""
    rows: int = 1_000_000
    """Rows of each table."""
    dim: int = 64
    """D."""
    pooling: int = 1
    """Ids of a sample in each table."""
    ids: Ids = "uniform"
    """How ids are distributed, see `dlrm.bench.batches.draw_ids`."""
    precision: ComputeDtype = "fp32"
    """Number format of the MLPs' products and of what they hand on."""
    storage: Storage = "fp32"
    """Storage of the tables."""
    optim: str = "sgd"
    """The optimizer, of tables and of dense parameters."""
    widths: tuple[int, ...] = (512, 256, 64)
    """Sizes of the MLP: inputs, then outputs of each layer."""
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "tables", "rows", "dim", "pooling", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError(
                f"widths are {dashed(self.widths)}, expected inputs and outputs, such as 512-256-64"
            )
        choices = {"ids": Ids, "precision": ComputeDtype, "storage": Storage}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise unknown(name, getattr(self, name), get_args(kind))
        optim.find(self.optim)

    @property
    def lookups(self) -> int:
        """L, ids of a batch."""
        return self.batch * self.tables * self.pooling

    @property
    def shape(self) -> Shape:
        """Shape of the operator's batches."""
        return Shape(self.batch, self.pooling, self.ids)

    @property
    def all_rows(self) -> tuple[int, ...]:
        """Rows of each of the T tables."""
        return (self.rows,) * self.tables

    @property
    def parameters(self) -> int:
        """Weights and biases of the MLP."""
        return sum(n * k + k for n, k in pairwise(self.widths))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations between layers."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def only(self, names: Sequence[str]) -> dict[str, Any]:
        """Return all fields JSON-ready, None for those that are not named."""
        values = {
            field.name: getattr(self, field.name) if field.name in names else None
            for field in fields(self)
        }
        return values | {"widths": dashed(self.widths) if "widths" in names else None}


def dashed(widths: Sequence[int]) -> str:
    """Return widths as they are given on the command line.

    >>> dashed((512, 256, 64))
    '512-256-64'
    """
    return "-".join(map(str, widths))


@dataclass(frozen=True, slots=True)
class Case:
    """An operator that is ready to run."""

    run: Callable[[Any], object]
    """Takes one of the inputs."""
    inputs: Sequence[Any]
    """Together larger than the last-level cache. As many results are kept, so that the next ones
    are not written to where the last ones were, which is still in the cache."""
    batches: int = 1
    """Batches that a run works through."""
    again: Sequence[Any] = ()
    """Inputs that stay in the cache, run on in turn; the first of `inputs` where there are none."""
    again_batches: int = 1
    """Batches that a run on one of those works through."""


class Stock:
    """Inputs that candidates measured together share, made at their first use and then reused."""

    def __init__(self, world: World = ALONE):
        self.world = world
        self._inputs: dict[Hashable, Any] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inputs.clear()
        self._open.close()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for this key before, or make it."""
        if key not in self._inputs:
            self._inputs[key] = make()
        return self._inputs[key]

    def folder(self) -> Path:
        """Return a fresh folder that is removed at the end."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory()))

    def tables(self, setting: Setting) -> EmbeddingCollection:
        """Return the tables of a setting; what stands in them matters to no speed.

        Each is looked up by a feature with one id, and by one of bags.
        """

        def make() -> EmbeddingCollection:
            tables = [Table(name=f"C{t}", num_embeddings=n) for t, n in enumerate(setting.all_rows)]
            features = [Feature(name=table.name, table=table.name) for table in tables]
            features += [Feature(name=f"{t.name}s", table=t.name, kind="bag") for t in tables]
            schema = Schema(dense=(), tables=tuple(tables), features=tuple(features))
            initial = constant(0.01)
            return materialize(
                EmbeddingCollection(
                    Layout.of(schema), setting.dim, storage=setting.storage, initializer=initial
                )
            )

        return self.once((setting.all_rows, setting.dim, setting.storage), make)

    def optimizer(self, setting: Setting) -> Optimizer:
        """Return an optimizer over these tables."""
        tables = self.tables(setting)
        return self.once(
            (setting.optim, id(tables)),
            lambda: optim.build(setting.optim, tables.parameter_groups(), LEARNING_RATE),
        )


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of a training step."""

    name: str
    about: str
    """What it does, as a sentence for people."""
    fields: tuple[str, ...]
    """Fields of the setting that matter to it."""
    counted: Callable[[Setting], Work]
    """What it has to do, calls aside."""
    build: Callable[[Setting, Stock], Case]
    processes: int = 1
    """Processes that it takes to run it."""

    def work(self, setting: Setting) -> Work:
        """Return what it has to do, with what a run costs however small it is as its calls."""
        layers = len(setting.widths) - 1 if self.name == "mlp" else 0
        calls = CALLS[self.name] + LAYER_CALLS * layers
        return replace(self.counted(setting), calls=calls)

    def inputs_bytes(self, setting: Setting) -> int:
        """Return about the memory of inputs, and of the results that are kept."""
        turn = self.counted(setting).stream_bytes
        return int(2 * (turns(turn) + 1) * turn)


def turns(turn_bytes: float, most: int = MOST) -> int:
    """Return how many inputs it takes, of which each and its result have so many bytes."""
    return max(LEAST, min(most, int(CACHES * batches.cache_bytes() // turn_bytes) + 1))


def draw(setting: Setting, inputs: int) -> list[Block]:
    """Return the ids of so many batches, for the tables of a `Stock`."""
    rng = np.random.default_rng(0)
    samples, pooling = inputs * setting.batch, setting.pooling
    drawn = batches.draw_ids(setting.all_rows, samples * pooling, setting.ids, rng)
    if pooling == 1:
        return [Block(ONE_HOT, ids) for ids in torch.from_numpy(drawn).split(setting.batch)]
    bags = drawn.reshape(samples, pooling, setting.tables).transpose(0, 2, 1).reshape(-1)
    ends = torch.arange(0, setting.lookups + 1, pooling)
    return [Block(LISTS, ids, ends) for ids in torch.from_numpy(bags).split(setting.lookups)]


def normal(
    inputs: int, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> Sequence[Tensor]:
    """Return so many tensors of random numbers."""
    return torch.randn(inputs, *shape).mul_(scale).to(dtype).unbind()


def leaves(inputs: int, *shape: int, dtype: torch.dtype = torch.float32) -> Sequence[Tensor]:
    """Return so many tensors of random numbers that get gradients."""
    return [numbers.requires_grad_() for numbers in normal(inputs, *shape, dtype=dtype)]
