"""The ways in which an MLP can multiply on this machine, and which of them is taken."""

import os
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from dlrm.ops import backend, cpu, products
from dlrm.ops.choice import choices
from dlrm.ops.cpu import library
from dlrm.ops.mlp import Products, mlp

Dtype = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

SMALL, LARGE, LARGEST_FLOP = 128, 1024, 2e9
"""Samples of a step that is measured for smaller batches than `LARGE_FROM`, and for others, as long
as it has no more operations."""
LARGE_FROM = 512
FEW = 64
"""Samples that are scored, for measuring."""


def chosen(
    x: Tensor, parameters: Sequence[Tensor], dtype: Dtype, *, relu_last: bool
) -> Products | None:
    """Return how `dlrm.ops.mlp.mlp` multiplies here, None where torch's products are to be taken.

    These are where there are no kernels, where they cannot read x or the parameters, and where they
    are faster (`dlrm.ops.choice`). Training steps of few and of many samples have choices of their
    own; what is scored has one, because a score must not depend on how many others there are.
    """
    if (
        x.dim() == 2
        and x.shape[0] > 0
        and x.shape[1] == parameters[0].shape[1]
        and x.dtype in cpu.DTYPES
    ):
        rows = x.shape[0] if torch.is_grad_enabled() else 0
        return chosen_for(parameters, dtype, relu_last=relu_last, rows=rows)
    return None


def chosen_for(
    parameters: Sequence[Tensor], dtype: Dtype, *, relu_last: bool, rows: int = 0
) -> Products | None:
    """Return what `chosen` does for training steps of so many samples, of none for scores."""
    if not _readable(parameters):
        return None
    named, default = _ways(cpu.instruction_set(), dtype)
    samples = 0 if not rows else SMALL if rows < LARGE_FROM else LARGE
    sizes = "-".join(str(n) for n in (parameters[0].shape[1], *map(len, parameters[1::2])))
    task = f"training {samples}" if rows else "scores"
    way = choices.fastest(
        f"mlp {dtype} {sizes}{' relu' if relu_last else ''} {task}", list(named), default,
        lambda way: _computed(named[way], samples, parameters, dtype, relu_last),
    )  # fmt: skip
    return named[way]


def _readable(parameters: Sequence[Tensor]) -> bool:
    return (
        all(p.dtype == torch.float32 and p.is_contiguous() for p in parameters)
        and backend(parameters[0]) is cpu
    )


@cache
def _ways(isa: str, dtype: Dtype) -> tuple[dict[str, Products | None], str]:
    """Return the ways to multiply by their names, and the one that is taken where none is measured.

    That is ours for AVX-512, but for bfloat16 on a CPU with AMX, which multiplies it several times
    faster: there torch's, which uses it.
    """
    if os.environ.get("DLRM_KERNELS") == "tiles" and dtype == "bf16":
        kind: Products = "tiles" if library.native.multiplies_tiles() else "emulated"
        return {f"amx {kind}": kind}, f"amx {kind}"
    ways: dict[str, Products | None] = {"torch": None}
    if dtype == "fp32":
        ways[isa] = "fp32"
    elif library.native.multiplies_bf16():
        ways[f"{isa} bf16"] = "bf16"
    tiles = bool(library.native.multiplies_tiles()) and dtype == "bf16"
    if tiles:
        ways["amx tiles"] = "tiles"
    return ways, "torch" if isa != "avx512" or tiles else list(ways)[-1]


def _computed(
    ours: Products | None, samples: int, parameters: Sequence[Tensor], dtype: Dtype, relu: bool
) -> None:
    """Take the passes of a step of so many random samples, or of 0 the forward pass of a few."""
    inputs, layers = parameters[0].shape[1], [p.detach() for p in parameters]
    weights = sum(layer.numel() for layer in layers)
    most = max(FEW, int(LARGEST_FLOP / (6 * weights + 1)))
    x = torch.randn(min(samples, most) or FEW, inputs, generator=torch.Generator().manual_seed(0))
    if not samples:
        with torch.no_grad():
            _by(ours, x, layers, dtype, relu)
        return
    with torch.enable_grad():
        wanted = [tensor.requires_grad_() for tensor in (x, *layers)]
        out = _by(ours, x, layers, dtype, relu)
        torch.autograd.grad(out, wanted, torch.ones_like(out))


def _by(
    ours: Products | None, x: Tensor, parameters: Sequence[Tensor], dtype: Dtype, relu: bool
) -> Tensor:
    if ours is None:
        return products.mlp(x, parameters, DTYPES[dtype], relu_last=relu)
    return mlp(x, parameters, ours, relu_last=relu)
