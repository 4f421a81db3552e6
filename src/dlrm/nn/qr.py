"""Quotient-remainder tables: two small ones instead of a large one.

    e[i] = q[i // c] * r[i % c]        mult, element by element
    e[i] = q[i // c] + r[i % c]        add
    e[i] = (q[i // c], r[i % c])       concat, of D/2 numbers each

With c collisions a table of n rows becomes ceil(n / c) + c rows, and every id still has a vector of
its own.

Source: Shi, Mudigere, Naumov, Yang, "Compositional Embeddings Using Complementary Partitions for
Memory-Efficient Recommendation Systems", arXiv 1909.02107.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from dlrm.errors import ConfigError
from dlrm.nn.embedding import (
    Embeddings,
    Storage,
    bags_of,
    collection,
    constant,
    normal,
    uniform,
)

Operation = Literal["mult", "add", "concat"]


class QREmbeddings(Embeddings):
    """Quotient and remainder tables of T features.

    Fresh vectors have the variance of a plain table's. For `mult` the remainders start as random
    signs: the product is then drawn exactly as a plain row is, its gradient reaches the quotients
    as it would reach that row, and what one id learns moves those that share its quotient up as
    often as down.

    Args:
        rows: Ids of each feature.
        dim: D.
        names: Name of each feature, for errors.
        operation: How the two vectors meet.
        collisions: c, ids that share a quotient, and rows of each remainder table.
        product: Whether `mult` multiplies the vectors of each `id` and sums the products of a bag,
            or multiplies the sums of each `bag` as the original DLRM does. Bags of one are equal.
        storage: See `EmbeddingCollection`.
        init_std: Of the fresh vectors; None for the variance of uniform(-sqrt(1/n), sqrt(1/n)).

    Raises:
        ConfigError: It cannot apply to a table, which is named.

    """

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        operation: Operation = "mult",
        collisions: int = 4,
        product: Literal["id", "bag"] = "id",
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(rows, dim, names)
        self.operation: Operation = operation
        self.collisions = collisions
        self.product = product
        quotients = [-(-n // collisions) for n in self.rows]
        if operation == "concat" and dim % 2:
            raise ConfigError(
                f"{self.names[0]}: its vectors have {dim} numbers, and concat makes them of two "
                "halves: choose an even dimension, or tables.operation mult or add"
            )
        if operation == "concat":
            dim //= 2
        # The sum of two has the variance of both.
        share = sqrt(0.5) if operation == "add" else 1.0
        draw = uniform([share * sqrt(1 / n) for n in self.rows])
        if init_std is not None:
            draw = normal(init_std * share)
        self.quotients = collection(quotients, dim, self.names, storage=storage, draw=draw)
        self.remainders = collection(
            [collisions] * len(quotients), dim, self.names, storage=storage, draw=draw
        )
        if operation == "mult":
            self.remainders.fill(_signs)

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up quotients and remainders; see `Embeddings.forward`."""
        ids = self.rows_of(ids, offsets)
        # Integers, where a float32 would give wrong quotients beyond 2^24.
        q = torch.div(ids, self.collisions, rounding_mode="floor")
        r = ids - q * self.collisions
        if self.operation == "mult" and self.product == "id" and offsets is not None:
            products = self.quotients.each(q, offsets) * self.remainders.each(r, offsets)
            pooled = products.new_zeros(offsets.shape[0] - 1, self.dim)
            pooled = pooled.index_add(0, bags_of(offsets, ids.shape[0]), products)
            return pooled.view(-1, len(self.rows), self.dim)
        first, second = self.quotients(q, offsets), self.remainders(r, offsets)
        match self.operation:
            case "mult":
                return first * second
            case "add":
                return first + second
            case "concat":
                return torch.cat([first, second], dim=2)

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Make every vector 0; a product keeps remainders of 1, or its gradient were 0 for ever."""
        super().start_at_zero()
        if self.operation == "mult":
            self.remainders.fill(constant(1.0))


def _signs(values: Tensor, t: int, first: int) -> None:
    values.copy_(torch.randint_like(values, 2) * 2 - 1)
