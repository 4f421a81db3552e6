"""Single operators of a training step: what each has to do, and how it is run by itself.

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
from dlrm.bench.arch import NUM_DENSE, Arch
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.data.encoded import consecutive
from dlrm.data.loader import WINDOW_ROWS, Loader
from dlrm.data.store import Split
from dlrm.errors import ConfigError, unknown
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import (
    LISTS,
    ONE_HOT,
    Block,
    EmbeddingCollection,
    Layout,
    Storage,
    constant,
    materialize,
)
from dlrm.nn.interaction import Dot
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.parallel.exchange import AllToAll, Exchange
from dlrm.parallel.world import ALONE, World
from dlrm.planning import operators as works
from dlrm.planning.work import NUMBER_BYTES, Ids, Shape, Work
from dlrm.schema import Feature, Schema, Table
from dlrm.training.loss import bce

T = TypeVar("T")

CACHES = 4
"""Times the last-level cache that all inputs and results are."""
LEAST, MOST = 2, 16_384
"""Inputs; more than so many tiny ones are not made, which then are colder than real ones only in
what they look up."""
MOST_MLPS = 256
"""MLPs that take turns; of small ones so many fit into the cache."""
PROCESSES = 2
WINDOWS = 2
"""Windows of an epoch, at least: the second is read while the first is used."""
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
    """What an operator is measured on; each operator says which of these matter to it."""

    batch: int = 2048
    """B, samples."""
    tables: int = 8
    """T."""
    rows: int = 1_000_000
    """Of each table."""
    dim: int = 64
    """D."""
    pooling: int = 1
    """Ids of a sample in each table."""
    ids: Ids = "uniform"
    """How ids are distributed, see `dlrm.bench.batches.draw_ids`."""
    precision: ComputeDtype = "fp32"
    """Of the MLPs' products and of what they hand on."""
    storage: Storage = "fp32"
    """Of the tables."""
    optim: str = "sgd"
    """The optimizer, of tables and of dense parameters."""
    widths: tuple[int, ...] = (512, 256, 64)
    """Of the MLP: inputs, then outputs of each layer."""
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
        """Of its batches."""
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
        """What layers hand on."""
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
    """That a run works through."""
    again: Sequence[Any] = ()
    """Inputs that stay in the cache, run on in turn; the first of `inputs` where there are none."""
    again_batches: int = 1
    """That a run on one of those works through."""


class Stock:
    """What candidates that are measured together share: made when first asked for, then kept."""

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
    """Of the setting, that matter to it."""
    counted: Callable[[Setting], Work]
    """What it has to do, calls aside."""
    build: Callable[[Setting, Stock], Case]
    processes: int = 1
    """That it takes to run it."""

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


def _normal(
    inputs: int, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> Sequence[Tensor]:
    """Return so many tensors of random numbers."""
    return torch.randn(inputs, *shape).mul_(scale).to(dtype).unbind()


def _leaves(inputs: int, *shape: int, dtype: torch.dtype = torch.float32) -> Sequence[Tensor]:
    """Return so many tensors of random numbers that get gradients."""
    return [numbers.requires_grad_() for numbers in _normal(inputs, *shape, dtype=dtype)]


def _lookup_work(setting: Setting) -> Work:
    number_bytes = NUMBER_BYTES[setting.storage]
    return works.lookup(setting.all_rows, setting.dim, number_bytes, setting.shape)


def _lookup(setting: Setting, stock: Stock) -> Case:
    """Return lookups as a model does them, in training: each leaves its node in the graph."""
    tables, count = stock.tables(setting), turns(_lookup_work(setting).stream_bytes)
    key = ("ids", setting.batch, setting.all_rows, setting.pooling, setting.ids, count)
    return Case(tables.pooled, stock.once(key, lambda: draw(setting, count)))


def _update_work(setting: Setting) -> Work:
    return works.update(
        setting.all_rows,
        setting.dim,
        NUMBER_BYTES[setting.storage],
        setting.shape,
        setting.optim,
        split=setting.storage == "split",
    )


def _update(setting: Setting, stock: Stock) -> Case:
    """Return backward passes and updates, of lookups that were done before."""
    tables, optimizer = stock.tables(setting), stock.optimizer(setting)
    inputs = turns(_update_work(setting).stream_bytes)
    # As large as a mean over the batch makes them.
    scale = 1 / setting.batch
    grads = _normal(inputs, setting.batch, setting.tables, setting.dim, scale=scale)
    looked_up = [tables.pooled(block) for block in draw(setting, inputs)]

    def run(given: tuple[Tensor, Tensor]) -> None:
        vectors, grad = given
        # The graph is kept: this batch comes round again.
        vectors.backward(grad, retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()

    return Case(run, list(zip(looked_up, grads, strict=True)))


def _interaction_work(setting: Setting) -> Work:
    vectors = setting.tables + 1
    pairs = vectors * setting.tables // 2
    return _both(works.dot(setting.batch, vectors, setting.dim, pairs, setting.precision))


def _interaction(setting: Setting, stock: Stock) -> Case:
    dot = Dot(setting.tables, setting.dim)
    inputs, dtype = turns(_interaction_work(setting).stream_bytes), setting.dtype
    xs = _leaves(inputs, setting.batch, setting.dim, dtype=dtype)
    es = _leaves(inputs, setting.batch, setting.tables, setting.dim)
    grads = _normal(inputs, setting.batch, dot.width, dtype=dtype)

    def run(given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, e, grad = given
        out = dot(x, e)
        return out.detach(), *torch.autograd.grad(out, (x, e), grad)

    return Case(run, list(zip(xs, es, grads, strict=True)))


def _mlp_work(setting: Setting) -> Work:
    return _both(
        works.mlp(setting.widths, setting.batch, setting.precision, needs_input_gradient=True)
    )


def _mlp(setting: Setting, stock: Stock) -> Case:
    """Return passes forwards and backwards, up to the gradient of the inputs."""
    net = MLP(setting.widths, relu_last=True, dtype=setting.precision)
    parameters = list(net.parameters())
    inputs, dtype = turns(_mlp_work(setting).stream_bytes), setting.dtype
    xs = _leaves(inputs, setting.batch, setting.widths[0], dtype=dtype)
    scale = 1 / setting.batch
    grads = _normal(inputs, setting.batch, setting.widths[-1], scale=scale, dtype=dtype)

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, grad = given
        out = net(x)
        return out.detach(), *torch.autograd.grad(out, (x, *parameters), grad)

    return Case(run, list(zip(xs, grads, strict=True)))


def _loss_work(setting: Setting) -> Work:
    return _both(works.loss(setting.batch))


def _loss(setting: Setting, stock: Stock) -> Case:
    inputs = turns(_loss_work(setting).stream_bytes)
    logits = _leaves(inputs, setting.batch)
    labels = torch.rand(inputs, setting.batch).lt_(batches.CLICK_RATE).unbind()

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        logits, labels = given
        return torch.autograd.grad(bce(logits, labels), logits)

    return Case(run, list(zip(logits, labels, strict=True)))


def _dense_update_work(setting: Setting) -> Work:
    return works.dense_update(setting.parameters, setting.optim)


def _dense_update(setting: Setting, stock: Stock) -> Case:
    """Return steps of an optimizer; whole MLPs take turns."""

    def fresh() -> torch.optim.Optimizer:
        parameters = list(MLP(setting.widths, relu_last=True).parameters())
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) / setting.parameters
        return optim.build(setting.optim, [{"params": parameters, "sparse": False}], LEARNING_RATE)

    count = turns(_dense_update_work(setting).stream_bytes, MOST_MLPS)
    return Case(lambda optimizer: optimizer.step(), [fresh() for _ in range(count)])


def _loader_work(setting: Setting) -> Work:
    """Return what a batch takes: every number read once, and written once into the batch.

    In order: of a sample, 13 dense features (4 bytes), T P ids (4 bytes), offsets (8 T bytes, only
    with bags) and a label (1 byte, in the batch 4).
    """
    return Work(stream_bytes=setting.batch * (2 * _sample_bytes(setting) + 3))


def _sample_bytes(setting: Setting) -> int:
    offsets = 8 * setting.tables if setting.pooling > 1 else 0
    return 4 * NUM_DENSE + 4 * setting.tables * setting.pooling + offsets + 1


def _loader(setting: Setting, stock: Stock) -> Case:
    """Return epochs over files that were just written; and over a single window of them."""
    rows = max(WINDOWS * WINDOW_ROWS, 2 * setting.batch, turns(_sample_bytes(setting), 1 << 40))
    arch = Arch("", setting.all_rows, DLRMConfig(), pooling=setting.pooling)
    split = stock.once(
        ("split", rows, setting.all_rows, setting.pooling, setting.ids),
        lambda: batches.write_split(stock.folder(), arch, rows, setting.ids),
    )
    endless = iter(range(1 << 62))

    def run(loader: Loader) -> None:
        for _ in loader.epoch(next(endless)):
            pass

    first = _first(split, max(setting.batch, WINDOW_ROWS), setting.tables)
    whole, window = (
        Loader(each, batch_size=setting.batch, shuffle=True) for each in (split, first)
    )
    return Case(run, [whole], batches=len(whole), again=[window], again_batches=len(window))


def _first(split: Split, rows: int, tables: int) -> Split:
    """Return the first rows of a split."""
    lists = None if split.lists is None else consecutive(split.lists, tables, 0, rows)
    return Split("train", split.dense[:rows], split.ids[:rows], split.labels[:rows], lists)


def _exchange_work(setting: Setting) -> Work:
    """Return what both processes have to do for a batch, whose tables and samples they share.

    In order: each has the vectors of half of the tables, and needs those of half of the samples,
    so half of them travel, and half of the gradients travel back: 4 B T D bytes. Read here, written
    there: twice as many.
    """
    return Work(stream_bytes=2 * 4 * setting.batch * setting.tables * setting.dim)


def _exchange(setting: Setting, stock: Stock) -> Case:
    """Return trips of vectors there and of gradients back, in one of two processes.

    Raises:
        ConfigError: There is only one process.

    """
    world = stock.world
    if world.size != PROCESSES:
        raise ConfigError(f"an exchange takes {PROCESSES} processes, found {world.size}")
    exchange = Exchange(world.rank, PROCESSES, world.exchange, samples=(1, 1))
    # Of half of the tables, for half of the samples.
    numbers = -(-setting.batch * setting.tables * setting.dim // PROCESSES**2)
    sent, inputs = [numbers] * PROCESSES, turns(_exchange_work(setting).stream_bytes)
    vectors, grads = _leaves(inputs, sum(sent)), _normal(inputs, sum(sent))

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        vectors, grad = given
        both = AllToAll(exchange, sent, sent)
        arrived = both.end(both.begin(vectors))
        return arrived.detach(), *torch.autograd.grad(arrived, vectors, grad)

    return Case(run, list(zip(vectors, grads, strict=True)))


def _both(directions: tuple[Work, Work]) -> Work:
    """Return the work of both directions of an operator."""
    return directions[0] + directions[1]


OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            "lookup",
            "rows of the tables, forwards",
            ("batch", "tables", "rows", "dim", "pooling", "ids", "storage", "threads"),
            _lookup_work,
            _lookup,
        ),
        Operator(
            "update",
            "gradients of rows, and the optimizer that applies them",
            ("batch", "tables", "rows", "dim", "pooling", "ids", "storage", "optim", "threads"),
            _update_work,
            _update,
        ),
        Operator(
            "interaction",
            "dot products of all pairs, forwards and backwards",
            ("batch", "tables", "dim", "precision", "threads"),
            _interaction_work,
            _interaction,
        ),
        Operator(
            "mlp",
            "all layers, forwards and backwards",
            ("batch", "precision", "widths", "threads"),
            _mlp_work,
            _mlp,
        ),
        Operator(
            "loss",
            "binary cross-entropy, forwards and backwards",
            ("batch", "threads"),
            _loss_work,
            _loss,
        ),
        Operator(
            "dense_update",
            "the optimizer over the parameters of an MLP",
            ("optim", "widths", "threads"),
            _dense_update_work,
            _dense_update,
        ),
        Operator(
            "loader",
            "batches from a prepared dataset, shuffled",
            ("batch", "tables", "pooling", "threads"),
            _loader_work,
            _loader,
        ),
        Operator(
            "exchange",
            "vectors to another process, gradients back",
            ("batch", "tables", "dim", "threads"),
            _exchange_work,
            _exchange,
            PROCESSES,
        ),
    )
}
"""Name -> operator, in the order of a step."""
