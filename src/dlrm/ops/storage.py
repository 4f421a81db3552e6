"""Storage of embedding tables, in plain torch: the oracle for the kernels' arithmetic.

    float32                    as it is
    bfloat16                   an update rounds up or down at random, so that small steps are not
                               lost on average; or to the nearest, which loses them
    bfloat16 with its lower    the upper half of a float32 is the weight that lookups read, the
                               lower half lies beside it, and updates lose nothing

Sources: Gupta et al., "Deep Learning with Limited Numerical Precision", ICML 2015 (stochastic
rounding); Kalamkar et al., "Optimizing Deep Learning Recommender Systems' Training On CPU Cluster
Architectures", SC 2020, arXiv 2005.04680 (split).
"""

from typing import Literal

import torch
from torch import Tensor

from dlrm.ops.memory import in_huge_pages

Storage = Literal["fp32", "bf16", "bf16_nearest", "split"]
"""How tables are stored: float32; bfloat16 with stochastic rounding; bfloat16 with rounding to the
nearest, which loses small updates; bfloat16 whose lower halves the optimizer keeps, so that nothing
is lost."""

_WORD = 0xFFFFFFFF


def lower_half(weight: Tensor) -> Tensor:
    """Return fresh lower halves of a split weight, zero: int16 of its shape."""
    return in_huge_pages(torch.empty_like(weight, dtype=torch.int16, requires_grad=False)).zero_()


def optimizer_state(
    weight: Tensor,
    state: dict[str, Tensor],
    storage: Storage,
    generator: torch.Generator | None = None,
) -> tuple[Tensor | None, int]:
    """Return the `lower` half and the `seed` that an update of this weight takes.

    Args:
        weight: The parameter; one that is not bfloat16 is never rounded, whatever the storage.
        state: Its state in the optimizer, with `lower` where the weight is split.
        storage: How it is stored.
        generator: Draws the seed, so that a resumed run draws the same; None for torch's own.

    Returns:
        The lower half, None unless the weight is split; and the seed, 0 if nothing is rounded at
        random.

    """
    if weight.dtype != torch.bfloat16:
        return None, 0
    if storage == "split":
        return state["lower"], 0
    if storage == "bf16":
        return None, int(torch.randint(1, 2**31, (), generator=generator))
    return None, 0


def load(weight: Tensor, rows: Tensor, lower: Tensor | None) -> Tensor:
    """Return some rows as updates see them, a copy.

    Rows are (U,) int64 of a weight (R, D); `lower` (R, D) int16 are the lower halves of split rows,
    or None.

    Returns:
        (U, D), float32 if stored in bfloat16.

    """
    picked = weight.index_select(0, rows)
    if lower is None:
        return picked.float() if picked.dtype == torch.bfloat16 else picked
    low = lower.index_select(0, rows).int() & 0xFFFF
    return ((picked.view(torch.int16).int() << 16) | low).view(torch.float32)


def store(weight: Tensor, rows: Tensor, values: Tensor, lower: Tensor | None, seed: int) -> None:
    """Write rows back.

    Args:
        weight: (R, D), changed in place.
        rows: (U,) int64, distinct.
        values: (U, D), as `load` returned them.
        lower: (R, D) int16, changed in place, or None.
        seed: Decides the noise of stochastic rounding, with row and column; 0 rounds to the
            nearest.

    """
    if lower is not None:
        bits = values.view(torch.int32)
        lower.index_copy_(0, rows, bits.to(torch.int16))
        values = (bits >> 16).to(torch.int16).view(torch.bfloat16)
    elif weight.dtype == torch.bfloat16:
        values = (
            _stochastic(values, _noise(rows, values.shape[1], seed)) if seed else values.bfloat16()
        )
    weight.index_copy_(0, rows, values)


def _stochastic(values: Tensor, noise: Tensor) -> Tensor:
    bits = values.view(torch.int32).long() & _WORD
    up_or_down = ((bits + (noise & 0xFFFF)) >> 16).to(torch.int16).view(torch.bfloat16)
    return torch.where(values.isfinite(), up_or_down, values.bfloat16())


def _noise(rows: Tensor, dim: int, seed: int) -> Tensor:
    row_bits = mixed_bits((rows & _WORD) ^ mixed_bits((rows >> 32) ^ (seed & _WORD)))
    return mixed_bits((row_bits[:, None] + torch.arange(dim, device=rows.device)) & _WORD)


def mixed_bits(x: Tensor) -> Tensor:
    """Return other numbers of 32 bits for those of 32 bits, one to one: Wellons' lowbias32.

    In int64, because torch has no unsigned arithmetic.
    """
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _WORD
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _WORD
    return x ^ (x >> 16)
