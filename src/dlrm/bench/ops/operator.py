"""What an operator is to a benchmark: what it has to do, what that needs, and how it is run."""

import contextlib
import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from torch.optim import Optimizer

from dlrm import optim
from dlrm.bench.cost.work import Work
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.ops.setting import Setting
from dlrm.nn.embedding import EmbeddingCollection, Layout, constant, materialize
from dlrm.parallel.world import ALONE, World
from dlrm.schema import Feature, Schema, Table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """An operator that is ready to run."""

    run: Callable[[Any], object]
    """Takes one of the inputs."""
    inputs: Sequence[Any]
    """Together larger than the last-level cache, see `dlrm.bench.ops.rotation`."""
    results: int = 0
    """Runs whose results are kept, so that the next ones are not written to where the last ones
    were, which is still in the cache."""
    batches: int = 1
    """That a run works through."""
    again: Sequence[Any] = ()
    """Inputs that stay in the cache, run on in turn; the first of `inputs` where there are none."""
    again_batches: int = 1
    """That a run on one of those works through."""


class Stock:
    """What candidates that are measured together share: made when first asked for, then kept.

    Args:
        world: The processes that measure together.

    """

    def __init__(self, world: World = ALONE):
        self.world = world
        self._kept: dict[Hashable, Any] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.clear()
        self._open.close()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for this key before, or make it."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def folder(self) -> Path:
        """Return a fresh folder that is removed at the end."""
        return Path(self._open.enter_context(tempfile.TemporaryDirectory()))

    def tables(self, setting: Setting) -> EmbeddingCollection:
        """Return the tables of a setting; what stands in them matters to no speed."""
        return self.once(_tables(setting), lambda: _fresh(setting))

    def optimizer(self, setting: Setting) -> Optimizer:
        """Return an optimizer over these tables."""
        groups = self.tables(setting).parameter_groups()
        return self.once(
            (setting.optim, *_tables(setting)),
            lambda: optim.build(setting.optim, groups, LEARNING_RATE),
        )


def _fresh(setting: Setting) -> EmbeddingCollection:
    """Return tables of which each is looked up by a feature with one id, and by one of bags."""
    tables = [Table(name=f"C{t}", num_embeddings=n) for t, n in enumerate(setting.all_rows)]
    features = [Feature(name=table.name, table=table.name) for table in tables]
    features += [Feature(name=f"{t.name}s", table=t.name, kind="bag") for t in tables]
    layout = Layout.of(Schema(dense=(), tables=tuple(tables), features=tuple(features)))
    return materialize(
        EmbeddingCollection(
            layout, setting.dim, storage=setting.storage, initializer=constant(0.01)
        )
    )


def _tables(setting: Setting) -> tuple[Hashable, ...]:
    return setting.all_rows, setting.dim, setting.storage


@dataclass(frozen=True, slots=True)
class Need:
    """Memory that measuring takes."""

    tables_bytes: int = 0
    """Of tables and their state, which candidates with equal ones share."""
    inputs_bytes: int = 0
    """Of everything else."""

    @property
    def total_bytes(self) -> int:
        """Of a candidate alone."""
        return self.tables_bytes + self.inputs_bytes


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of a training step."""

    name: str
    about: str
    """What it does, as a sentence for people."""
    fields: tuple[str, ...]
    """Of the setting, that matter to it."""
    work: Callable[[Setting], Work]
    """What it has to do. Its calls are what a run costs however small it is: what Python, autograd
    and starting threads take too."""
    need: Callable[[Setting], Need]
    """Memory that it takes."""
    build: Callable[[Setting, Stock], Case]
    processes: int = 1
    """That it takes to run it."""
