"""How fast a training step could be on this machine: its matrix products and its memory accesses.

    limit = sum over layers of t(B, n, k) + t(n, B, k) + t(B, k, n)       products of the MLPs
          + 3 * 2 * B * D * pairs / peak                                  dot products of pairs
          + B * T * D * bytes / gather                                    rows of the tables

A layer n -> k multiplies (B, n) by (n, k) forwards; backwards (n, B) by (B, k) for its weights and
(B, k) by (k, n) for its inputs, which the first layer of the bottom MLP does not need. t(m, k, n)
is the time of that product by the fastest way that was measured for this shape and precision: MKL
or oneDNN, whichever operand lies transposed. `pairs` is F (F - 1) / 2 for F = T + 1 vectors, each
a dot product forwards and two scaled additions backwards, at `peak`, the highest rate measured
among the products of the MLPs. A row of an embedding is read forwards, its gradient is read, and it
is read and written by the update, as is what the optimizer keeps of it: with SGD four times, 16
bytes a number, fewer where tables are stored in fewer. All that at the speed `gather` of reading
random rows of tables of this size.

What the limit leaves out takes time as well: activations, the loss, the dense optimizer, calls.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm import optim
from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.cost.operator_work import READ_BYTES, mlp
from dlrm.bench.cost.work import Product
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.precision import ComputeDtype

UPDATED_BYTES = READ_BYTES | {"split": 4}
"""Storage -> bytes of one that an update reads and writes: of split tables both halves."""
GRADIENT_BYTES = 4
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
    vectors = len(arch.num_embeddings) + 1
    return 3 * 2 * batch_size * arch.model.dim * (vectors * (vectors - 1) // 2)


def embedding_bytes(arch: Arch, batch_size: int, optimizer: str) -> int:
    """Return what a step moves to and from embedding rows, their gradients and their state."""
    storage, dim = arch.model.tables.storage, arch.model.dim
    row_bytes = dim * (READ_BYTES[storage] + GRADIENT_BYTES + 2 * UPDATED_BYTES[storage])
    row_bytes += 2 * optim.find(optimizer).declaration.row_state_bytes(dim)
    return row_bytes * batch_size * len(arch.num_embeddings)


def limit(
    arch: Arch,
    batch_size: int,
    optimizer: str,
    product_s: Callable[[Product], float],
    gather_bytes_per_s: float,
) -> Roofline:
    """Return the limit of a step.

    Args:
        arch: Model and tables.
        batch_size: B.
        optimizer: As for `dlrm.optim.find`.
        product_s: Time of a product.
        gather_bytes_per_s: Speed of reading random rows.

    """
    seconds = {product: product_s(product) for product in products(arch, batch_size)}
    peak = max(product.flops / taken for product, taken in seconds.items())
    return Roofline(
        gemm_s=sum(seconds[product] for product in products(arch, batch_size)),
        interaction_s=interaction_flops(arch, batch_size) / peak,
        embedding_s=embedding_bytes(arch, batch_size, optimizer) / gather_bytes_per_s,
    )


def measure(
    arch: Arch, model: DLRM, batches: Sequence[Batch], precision: ComputeDtype, optimizer: str
) -> Roofline:
    """Measure the limit of a step on these batches, with the tables of this model."""
    return limit(
        arch,
        len(batches[0]),
        optimizer,
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
    blocks = [block for batch in batches for block in collection.layout.blocks(batch)]
    rows = [collection.rows(block).flatten() for block in blocks]
    out = torch.empty(0, collection.dim, dtype=collection.weight.dtype)

    def select() -> None:
        for each in rows:
            torch.index_select(collection.weight, 0, each, out=out.resize_(len(each), out.shape[1]))

    def look_up() -> None:
        for batch in batches:
            collection(batch)

    row_bytes = collection.dim * collection.weight.element_size()
    moved = sum(each.numel() for each in rows) * row_bytes
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
