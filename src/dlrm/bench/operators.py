"""The operators of a training step, each by itself: what it has to do, and how it is run."""

import torch
from torch import Tensor

from dlrm import optim
from dlrm.bench import batches
from dlrm.bench.arch import NUM_DENSE, Arch
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.operator import MOST, Case, Operator, Setting, Stock, draw, leaves, normal, turns
from dlrm.data.encoded import consecutive
from dlrm.data.loader import WINDOW_ROWS, Loader
from dlrm.data.store import Split
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.interaction import Dot
from dlrm.nn.mlp import MLP
from dlrm.parallel.exchange import AllToAll, Exchange
from dlrm.planning import operators as works
from dlrm.planning.work import NOTHING, NUMBER_BYTES, Shape, Work
from dlrm.training.loss import bce

MOST_MLPS = 256
"""MLPs that take turns; of small ones so many fit into the cache."""
PROCESSES = 2
WINDOWS = 2
"""Windows of an epoch, at least: the second is read while the first is used."""


def _inputs(name: str, setting: Setting, most: int = MOST) -> int:
    """Return how many inputs take turns."""
    return turns(OPERATORS[name].counted(setting).stream_bytes, most)


def _lookup(setting: Setting, stock: Stock) -> Case:
    """Return lookups as a model does them, in training: each leaves its node in the graph."""
    tables, count = stock.tables(setting), _inputs("lookup", setting)
    key = ("ids", setting.batch, setting.all_rows, setting.pooling, setting.ids, count)
    return Case(tables.pooled, stock.once(key, lambda: draw(setting, count)))


def _update(setting: Setting, stock: Stock) -> Case:
    """Return backward passes and updates, of lookups that were done before."""
    tables, optimizer = stock.tables(setting), stock.optimizer(setting)
    inputs = _inputs("update", setting)
    # As large as a mean over the batch makes them.
    scale = 1 / setting.batch
    grads = normal(inputs, setting.batch, setting.tables, setting.dim, scale=scale)
    looked_up = [tables.pooled(block) for block in draw(setting, inputs)]

    def run(given: tuple[Tensor, Tensor]) -> None:
        vectors, grad = given
        # The graph is kept: this batch comes round again.
        vectors.backward(grad, retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()

    return Case(run, list(zip(looked_up, grads, strict=True)))


def _interaction(setting: Setting, stock: Stock) -> Case:
    dot = Dot(setting.tables, setting.dim)
    inputs, dtype = _inputs("interaction", setting), setting.dtype
    xs = leaves(inputs, setting.batch, setting.dim, dtype=dtype)
    es = leaves(inputs, setting.batch, setting.tables, setting.dim)
    grads = normal(inputs, setting.batch, dot.width, dtype=dtype)

    def run(given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, e, grad = given
        out = dot(x, e)
        return out.detach(), *torch.autograd.grad(out, (x, e), grad)

    return Case(run, list(zip(xs, es, grads, strict=True)))


def _mlp(setting: Setting, stock: Stock) -> Case:
    """Return passes forwards and backwards, up to the gradient of the inputs."""
    net = MLP(setting.widths, relu_last=True, dtype=setting.precision)
    parameters = list(net.parameters())
    inputs, dtype = _inputs("mlp", setting), setting.dtype
    xs = leaves(inputs, setting.batch, setting.widths[0], dtype=dtype)
    scale = 1 / setting.batch
    grads = normal(inputs, setting.batch, setting.widths[-1], scale=scale, dtype=dtype)

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, grad = given
        out = net(x)
        return out.detach(), *torch.autograd.grad(out, (x, *parameters), grad)

    return Case(run, list(zip(xs, grads, strict=True)))


def _loss(setting: Setting, stock: Stock) -> Case:
    inputs = _inputs("loss", setting)
    logits = leaves(inputs, setting.batch)
    labels = torch.rand(inputs, setting.batch).lt_(batches.CLICK_RATE).unbind()

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        logits, labels = given
        return torch.autograd.grad(bce(logits, labels), logits)

    return Case(run, list(zip(logits, labels, strict=True)))


def _dense_update(setting: Setting, stock: Stock) -> Case:
    """Return steps of an optimizer; whole MLPs take turns."""

    def fresh() -> torch.optim.Optimizer:
        parameters = list(MLP(setting.widths, relu_last=True).parameters())
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) / setting.parameters
        return optim.build(setting.optim, [{"params": parameters, "sparse": False}], LEARNING_RATE)

    count = _inputs("dense_update", setting, MOST_MLPS)
    return Case(lambda optimizer: optimizer.step(), [fresh() for _ in range(count)])


def _sample_bytes(setting: Setting) -> int:
    """Return the bytes of a sample in a dataset: numbers, ids, offsets where ids pool, a label."""
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
        Loader(part, batch_size=setting.batch, shuffle=True) for part in (split, first)
    )
    return Case(run, [whole], batches=len(whole), again=[window], again_batches=len(window))


def _first(split: Split, rows: int, tables: int) -> Split:
    """Return the first rows of a split."""
    lists = None if split.lists is None else consecutive(split.lists, tables, 0, rows)
    return Split("train", split.dense[:rows], split.ids[:rows], split.labels[:rows], lists)


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
    sent, inputs = [numbers] * PROCESSES, _inputs("exchange", setting)
    vectors, grads = leaves(inputs, sum(sent)), normal(inputs, sum(sent))

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        vectors, grad = given
        both = AllToAll(exchange, sent, sent)
        arrived = both.end(both.begin(vectors))
        return arrived.detach(), *torch.autograd.grad(arrived, vectors, grad)

    return Case(run, list(zip(vectors, grads, strict=True)))


def _embedding(setting: Setting) -> tuple[tuple[int, ...], int, float, Shape]:
    return setting.all_rows, setting.dim, NUMBER_BYTES[setting.storage], setting.shape


_TABLES = ("batch", "tables", "rows", "dim", "pooling", "ids", "storage")
OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            "lookup",
            "rows of the tables, forwards",
            (*_TABLES, "threads"),
            lambda s: works.lookup(*_embedding(s)),
            _lookup,
        ),
        Operator(
            "update",
            "gradients of rows, and the optimizer that applies them",
            (*_TABLES, "optim", "threads"),
            lambda s: works.update(*_embedding(s), s.optim, split=s.storage == "split"),
            _update,
        ),
        Operator(
            "interaction",
            "dot products of all pairs, forwards and backwards",
            ("batch", "tables", "dim", "precision", "threads"),
            lambda s: sum(
                works.dot(
                    s.batch, s.tables + 1, s.dim, (s.tables + 1) * s.tables // 2, s.precision
                ),
                NOTHING,
            ),
            _interaction,
        ),
        Operator(
            "mlp",
            "all layers, forwards and backwards",
            ("batch", "precision", "widths", "threads"),
            lambda s: sum(
                works.mlp(s.widths, s.batch, s.precision, needs_input_gradient=True), NOTHING
            ),
            _mlp,
        ),
        Operator(
            "loss",
            "binary cross-entropy, forwards and backwards",
            ("batch", "threads"),
            lambda s: sum(works.loss(s.batch), NOTHING),
            _loss,
        ),
        Operator(
            "dense_update",
            "the optimizer over the parameters of an MLP",
            ("optim", "widths", "threads"),
            lambda s: works.dense_update(s.parameters, s.optim),
            _dense_update,
        ),
        Operator(
            "loader",
            "batches from a prepared dataset, shuffled",
            ("batch", "tables", "pooling", "threads"),
            # Each number is read once, and written once into the batch, a label there in 4 bytes.
            lambda s: Work(stream_bytes=s.batch * (2 * _sample_bytes(s) + 3)),
            _loader,
        ),
        Operator(
            "exchange",
            "vectors to another process, gradients back",
            ("batch", "tables", "dim", "threads"),
            # Each has vectors of half of the tables and needs those of half of the samples: half of
            # all travel, and half of the gradients back, read here and written there.
            lambda s: Work(stream_bytes=2 * 4 * s.batch * s.tables * s.dim),
            _exchange,
            PROCESSES,
        ),
    )
}
"""Name -> operator, in the order of a step."""
