"""Quotient-remainder tables: two small ones instead of a large one.

    e[i] = q[i // c] * r[i % c]        mult, element by element
    e[i] = q[i // c] + r[i % c]        add
    e[i] = (q[i // c], r[i % c])       concat, of D/2 numbers each

With c collisions a table of n rows becomes ceil(n / c) + c rows, and every id still has a vector of
its own.

Source: Shi, Mudigere, Naumov, Yang, "Compositional Embeddings Using Complementary Partitions for
Memory-Efficient Recommendation Systems", arXiv 1909.02107.
"""

from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from dlrm.errors import ConfigError
from dlrm.nn.embedding import Block, EmbeddingCollection, Embeddings, Layout, Storage
from dlrm.nn.initializer import constant, fresh_rows

Operation = Literal["mult", "add", "concat"]


class QREmbeddings(Embeddings):
    """Quotient and remainder tables of T features.

    Fresh vectors have the variance of a plain table's. For `mult` the remainders start as random
    signs: the product is then drawn exactly as a plain row is, its gradient reaches the quotients
    as it would reach that row, and what one id learns moves those that share its quotient up as
    often as down.

    `collisions`, c, are the ids that share a quotient, and the rows of each remainder table. `mult`
    multiplies the vectors of each id and sums the products of a bag; with the `product` of the bag
    it multiplies the sums of each bag, as the original DLRM does. `init_std` is the standard
    deviation of fresh vectors, None for that of uniform(-sqrt(1/n), sqrt(1/n)).

    Raises:
        ConfigError: It cannot apply to a table, which is named.

    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        operation: Operation = "mult",
        collisions: int = 4,
        product: Literal["id", "bag"] = "id",
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(layout, dim)
        self.operation: Operation = operation
        self.collisions = collisions
        self.product = product
        quotients = [-(-n // collisions) for n in layout.sizes]
        if operation == "concat" and dim % 2:
            raise ConfigError(
                f"{self.names[0]}: its vectors have {dim} numbers, and concat makes them of two "
                "halves: choose an even dimension, or tables.operation mult or add"
            )
        if operation == "concat":
            dim //= 2
        # The sum of two has the variance of both.
        share = sqrt(0.5) if operation == "add" else 1.0
        initializer = fresh_rows(layout, init_std, share=share)
        self.quotients = EmbeddingCollection(
            layout.resized(quotients), dim, storage=storage, initializer=initializer
        )
        self.remainders = EmbeddingCollection(
            layout.resized([collisions] * len(quotients)),
            dim,
            storage=storage,
            initializer=_signs if operation == "mult" else initializer,
        )

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up quotients and remainders; see `Embeddings.pooled`."""
        if self.operation == "mult" and self.product == "id":
            return super().pooled(block, per_sample_weights)
        assert per_sample_weights is None
        q, r = self._split(block)
        return self._met(self.quotients.pooled(q), self.remainders.pooled(r))

    def vectors(self, block: Block) -> Tensor:
        """Look up quotients and remainders one by one; see `Embeddings.vectors`."""
        q, r = self._split(block)
        return self._met(self.quotients.vectors(q), self.remainders.vectors(r))

    def _split(self, block: Block) -> tuple[Block, Block]:
        ids = self.checked_ids(block)
        # Integers, where a float32 would give wrong quotients beyond 2^24.
        q = torch.div(ids, self.collisions, rounding_mode="floor")
        return block._replace(ids=q), block._replace(ids=ids - q * self.collisions)

    def _met(self, first: Tensor, second: Tensor) -> Tensor:
        match self.operation:
            case "mult":
                return first * second
            case "add":
                return first + second
            case "concat":
                return torch.cat([first, second], dim=-1)

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Make every vector 0; a product keeps remainders of 1, or its gradient were 0 for ever."""
        super().start_at_zero()
        if self.operation == "mult":
            self.remainders.start_with(constant(1.0))


def _signs(values: Tensor, t: int, first: int) -> None:
    values.copy_(torch.randint_like(values, 2) * 2 - 1)
