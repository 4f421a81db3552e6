"""How fast a training step could be on this machine: its matrix products and its memory accesses.

    limit = sum over layers of t(B, n, k) + t(n, B, k) + t(B, k, n)       products of the MLPs
          + 3 * 2 * B * D * pairs / peak                                  dot products of pairs
          + 4 * B * T * D * 4 bytes / gather                              rows of the tables
    (fewer bytes where tables are stored in fewer)

A layer n -> k multiplies (B, n) by (n, k) forwards; backwards (n, B) by (B, k) for its weights and
(B, k) by (k, n) for its inputs, which the first layer of the bottom MLP does not need. t(m, k, n)
is the time of that product by the fastest way that was measured for this shape and precision: MKL
or oneDNN, whichever operand lies transposed. `pairs` is F (F - 1) / 2 for F = T + 1 vectors, each
a dot product forwards and two scaled additions backwards, at `peak`, the highest rate measured
among the products of the MLPs. A row of an embedding is read forwards, its gradient is read, and it
is read and written by the update: four times, at the speed `gather` of reading random rows of
tables of this size.

What the limit leaves out takes time as well: activations, the loss, the dense optimizer, calls.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.cost.operator_work import mlp
from dlrm.bench.cost.work import Product
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import EmbeddingCollection, Storage
from dlrm.nn.precision import ComputeDtype

NUMBER_BYTES: dict[Storage, int] = {
    "fp32": 4 + 4 + 4 + 4,
    "split": 2 + 4 + 4 + 4,
    "bf16": 2 + 4 + 2 + 2,
    "bf16_nearest": 2 + 4 + 2 + 2,
}
"""Storage -> bytes of each number of a row: row read, gradient read, row read and written by the
update, which of split tables touches both halves."""
BUDGET_S = 0.02
"""Time to look for the fastest run of one product."""
LEAST_RUNS = 3


@dataclass(frozen=True, slots=True)
class Roofline:
    """The least time of a step, by its parts."""

    gemm_s: float
    interaction_s: float
    embedding_s: float

    @property
    def total_s(self) -> float:
        """The limit of a step."""
        return self.gemm_s + self.interaction_s + self.embedding_s


def products(arch: Arch, batch_size: int) -> list[Product]:
    """Return the products of a step's MLPs, forwards and backwards."""
    return [
        product
        for sizes, needs in ((arch.bottom, False), (arch.top, True))
        for work in mlp(sizes, batch_size, "fp32", needs_input_gradient=needs)
        for product in work.products
    ]


def interaction_flops(arch: Arch, batch_size: int) -> int:
    """Return the operations of the dot products of all pairs, forwards and backwards."""
    vectors = len(arch.rows) + 1
    return 3 * 2 * batch_size * arch.model.dim * (vectors * (vectors - 1) // 2)


def embedding_bytes(arch: Arch, batch_size: int) -> int:
    """Return what a step moves to and from embedding rows and their gradients."""
    number_bytes = NUMBER_BYTES[arch.model.tables.storage]
    return number_bytes * batch_size * len(arch.rows) * arch.model.dim


def limit(
    arch: Arch,
    batch_size: int,
    product_s: Callable[[Product], float],
    gather_bytes_per_s: float,
) -> Roofline:
    """Return the limit of a step.

    Args:
        arch: Model and tables.
        batch_size: B.
        product_s: Time of a product.
        gather_bytes_per_s: Speed of reading random rows.

    """
    seconds = {product: product_s(product) for product in products(arch, batch_size)}
    peak = max(product.flops / taken for product, taken in seconds.items())
    return Roofline(
        gemm_s=sum(seconds[product] for product in products(arch, batch_size)),
        interaction_s=interaction_flops(arch, batch_size) / peak,
        embedding_s=embedding_bytes(arch, batch_size) / gather_bytes_per_s,
    )


def measure(arch: Arch, model: DLRM, batches: Sequence[Batch], precision: ComputeDtype) -> Roofline:
    """Measure the limit of a step on these batches, with the tables of this model."""
    return limit(
        arch,
        len(batches[0]),
        lambda product: product_s(product, precision),
        gather_bytes_per_s(model, batches),
    )


@torch.no_grad()
def product_s(product: Product, precision: ComputeDtype) -> float:
    """Return the time of a product by the fastest way there is."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(product.m, product.k).to(dtype)
    b = torch.randn(product.k, product.n).to(dtype)
    a_t, b_t = a.t().contiguous(), b.t().contiguous()
    ways: list[Callable[[], Tensor]] = [
        lambda: a @ b,
        lambda: a_t.t() @ b,
        lambda: F.linear(a, b_t),
    ]
    if torch.backends.mkldnn.is_available():
        # For float32 torch asks MKL; this asks oneDNN, which is faster on some CPUs.
        onednn = torch.ops.mkldnn._linear_pointwise
        ways.append(lambda: onednn(a, b_t, None, "none", [], ""))
    return min(_fastest(way) for way in ways)


@torch.no_grad()
def gather_bytes_per_s(model: DLRM, batches: Sequence[Batch]) -> float:
    """Return the speed of reading the rows of batch after batch, by the faster of two ways."""
    collection = model.embeddings
    assert isinstance(collection, EmbeddingCollection)
    one = batches[0]
    out = torch.empty(one.ids.numel(), collection.dim, dtype=collection.weight.dtype)
    flat = [(batch.ids.long() + collection.starts).flatten() for batch in batches]

    def select() -> None:
        for ids in flat:
            torch.index_select(collection.weight, 0, ids, out=out)

    def look_up() -> None:
        for batch in batches:
            collection(batch.ids)

    row_bytes = collection.dim * collection.weight.element_size()
    moved = sum(ids.numel() for ids in flat) * row_bytes
    return moved / min(_fastest(select), _fastest(look_up))


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several runs, after one that does not count."""
    run()
    least, began, runs = math.inf, time.perf_counter(), 0
    while runs < LEAST_RUNS or time.perf_counter() - began < BUDGET_S:
        started = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - started)
        runs += 1
    return least
