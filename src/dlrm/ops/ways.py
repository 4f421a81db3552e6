"""The ways in which an MLP can multiply on this machine, and which of them is taken."""

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor

from dlrm.ops import backend, cpu, products
from dlrm.ops.choice import choices
from dlrm.ops.cpu import library
from dlrm.ops.mlp import Packed, Products, mlp

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
    sizes = (parameters[0].shape[1], *map(len, parameters[1::2]))
    # Torch's products of a sample may depend on how many others there are.
    names = [name for name in named if rows or default == "torch" or name != "torch"]
    prepared = cache(lambda way: _prepared(named[way], samples, parameters, dtype, relu_last))
    way = choices.fastest(
        _task(sizes, dtype, relu_last, samples), names, default,
        lambda way: prepared(way)(),
    )  # fmt: skip
    return named[way]


@cache
def _task(sizes: tuple[int, ...], dtype: Dtype, relu_last: bool, samples: int) -> str:
    """Return the name of a choice; kept, because small batches notice how long that takes."""
    whole = "-".join(map(str, sizes))
    return (
        f"mlp {dtype} {whole}{' relu' if relu_last else ''} "
        f"{f'training {samples}' if samples else 'scores'}"
    )


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


def _prepared(
    ours: Products | None, samples: int, parameters: Sequence[Tensor], dtype: Dtype, relu: bool
) -> Callable[[], object]:
    """Return what takes a step of so many random samples, or of 0 scores a few."""
    layers = [p.detach() for p in parameters]
    weights = sum(layer.numel() for layer in layers)
    most = max(FEW, int(LARGEST_FLOP / (6 * weights + 1)))
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(min(samples, most) or FEW, layers[0].shape[1], generator=drawn)
    if not samples:
        if ours is None:
            return partial(products.Rounded(layers, DTYPES[dtype], relu_last=relu), x)
        return partial(Packed(layers, ours, relu_last=relu), x)
    wanted = [tensor.requires_grad_() for tensor in (x, *layers)]

    def step() -> None:
        with torch.enable_grad():
            if ours is None:
                out = products.mlp(x, layers, DTYPES[dtype], relu_last=relu)
            else:
                out = mlp(x, layers, ours, relu_last=relu)
            torch.autograd.grad(out, wanted, torch.ones_like(out))

    return step
