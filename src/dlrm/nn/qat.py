"""Tables that are trained for the codes that they become (quantisation-aware training).

    e[i] = code(w[i]) * scale + bias       forwards: what the codes of row i stand for
    d loss / d w[i] = d loss / d e[i]      backwards: as if nothing had been rounded

The rows stay in float32, so that small updates add up until a code changes. Scales and biases are
those of `dlrm.nn.codes`: `quantize` then changes no vector that training saw.

Sources: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons
for Conditional Computation", arXiv 1308.3432 (the gradient); Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from dlrm.nn.codes import BITS, Bits, Codes, rounded
from dlrm.nn.embedding import Block, EmbeddingCollection, Embeddings, Layout, Storage
from dlrm.nn.initializer import Initializer

QAT = Literal["none", "int8", "int4", "int2"]


class QATEmbeddings(Embeddings):
    """T tables of dimension D whose rows are rounded to codes when they are looked up.

    The rows that are trained are stored and start as those of an `EmbeddingCollection`.
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        codes: Codes,
        storage: Storage = "fp32",
        initializer: Initializer | None = None,
    ):
        super().__init__(layout, dim)
        self.codes: Codes = codes
        self.tables = EmbeddingCollection(layout, dim, storage=storage, initializer=initializer)

    def vectors(self, block: Block) -> Tensor:
        """Look up the rounded row of each id; see `Embeddings.vectors`."""
        return _Rounded.apply(self.tables.vectors(block), BITS[self.codes])  # pyright: ignore[reportReturnType]

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
