"""Tables that are trained for the codes that they become (quantisation-aware training).

    e[i] = code(w[i]) * scale + bias       forwards: what the codes of row i stand for
    d loss / d w[i] = d loss / d e[i]      backwards: as if nothing had been rounded

The rows stay in float32, so that small updates add up until a code changes. Scales and biases are
those of `dlrm.nn.codes`: `quantize` then changes no vector that training saw.

Sources: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
for Conditional Computation", arXiv 1308.3432 (the gradient); Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dlrm.nn.codes import BITS, Bits, Codes, rounded
from dlrm.nn.embedding import Embeddings, Initializer, Storage, bags_of, collection

QAT = Literal["none", "int8", "int4", "int2"]


class QATEmbeddings(Embeddings):
    """T tables of dimension D whose rows are rounded to codes when they are looked up.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.
        codes: That they are trained for.
        storage: Of the rows that are trained, see `EmbeddingCollection`.
        draw: What fresh rows are, as there.

    """

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        codes: Codes,
        storage: Storage = "fp32",
        draw: Initializer | None = None,
    ):
        super().__init__(rows, dim, names)
        self.codes: Codes = codes
        self.tables = collection(rows, dim, names, storage=storage, draw=draw)

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Look up the rounded rows of each bag; see `Collection.forward`."""
        values = self.each(ids, offsets)
        if offsets is None:
            return values
        if per_sample_weights is not None:
            values = values * per_sample_weights[:, None]
        pooled = values.new_zeros(offsets.shape[0] - 1, self.dim)
        pooled = pooled.index_add(0, bags_of(offsets, ids.shape[0]), values)
        return pooled.view(-1, len(self.rows), self.dim)

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the rounded row of each id; see `Collection.each`."""
        return _Rounded.apply(self.tables.each(ids, offsets), BITS[self.codes])

    def fill(self, draw: Initializer) -> None:
        """Overwrite the rows that are trained."""
        self.tables.fill(draw)

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) rounded numbers of table t, a copy."""
        return rounded(self.tables.table(t).float(), BITS[self.codes])


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, bits: Bits) -> Tensor:
        return rounded(values, bits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
