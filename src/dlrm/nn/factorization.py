"""Second-order factorization: the dot products of all pairs of features, in linear time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

INIT_STD = 0.01
"""Standard deviation of fresh factors: small, so that a model starts as its linear part."""


class SecondOrder(nn.Module):
    """`sum_(i<j) <a_i, a_j>` over the vectors a of all features, for each label.

    A dense feature i has a learnt vector v_i a label, and a_i = x_i v_i; a categorical one has its
    embedding, the sum of its list where it has several ids: the vectors of all labels side by side.

    Source: Rendle, "Factorization Machines", ICDM 2010.
    """

    def __init__(self, num_dense: int, dim: int, labels: int = 1):
        super().__init__()
        self.labels = labels
        self.vectors = nn.Parameter(torch.randn(num_dense, labels * dim) * INIT_STD)

    def forward(self, dense: Tensor, e: Tensor) -> Tensor:
        """Map dense (B, N) and embeddings (B, T, K*D) to (B, K)."""
        if self.labels == 1:
            return _Pairs.apply(dense, self.vectors, e).unsqueeze(1)
        by_label = zip(
            self.vectors.chunk(self.labels, dim=1), e.chunk(self.labels, dim=2), strict=True
        )
        return torch.stack([_Pairs.apply(dense, v, e_k) for v, e_k in by_label], dim=1)


class _Pairs(torch.autograd.Function):
    """`1/2 (|s|^2 - q)` with the sum of all vectors s and the sum q of their squared lengths.

    Rendle's lemma 3.1: the square of the sum holds each pair twice, and each vector with itself.
    Dense features join s as x V and q as x^2 |V|^2, so that no (B, N, D) is made. Backwards
    dlogit/da_i = s - a_i. One function, because autograd would go over the embeddings twice as
    often.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, e: Tensor) -> Tensor:
        s = e.sum(dim=1)
        q = torch.linalg.vector_norm(e.flatten(1), dim=1).square()
        # Without dense features there is no product: not all runtimes have those of nothing.
        if x.shape[1]:
            s = torch.addmm(s, x, v)
            q = q + x.square() @ v.square().sum(dim=1)
        ctx.save_for_backward(x, v, e, s)
        return (s.square().sum(dim=1) - q) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, v, e, s = ctx.saved_tensors
        gs = g[:, None] * s
        de = torch.mul(e, -g[:, None, None]).add_(gs[:, None])
        dv = x.t() @ gs - (x.square().t() @ g)[:, None] * v
        dx = (
            gs @ v.t() - g[:, None] * x * v.square().sum(dim=1) if ctx.needs_input_grad[0] else None
        )
        return dx, dv, de
