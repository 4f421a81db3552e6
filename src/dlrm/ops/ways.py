"""The ways in which MLPs can multiply on this machine, and which of them is taken.

All MLPs of a process take the same for steps of few samples, for others, and for scores. What is
measured are those of a DLRM for Criteo, because where a model goes to and fro between our threads
and torch's, each waits for cores on which the other's do: a step takes up to half as long again.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor

from dlrm.ops import backend, cpu, products
from dlrm.ops.choice import choices
from dlrm.ops.cpu import library
from dlrm.ops.mlp import Packed, Products, mlp

Dtype = Literal["fp32", "bf16"]
_DTYPE = attrgetter("dtype")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

BOTTOM, TOP = (13, 512, 256, 64, 16), (367, 512, 256, 1)
"""Sizes of the MLPs that are measured: inputs, then outputs of each layer."""
MANY = 512
"""Samples from which a step is one of many; as many are measured."""
SAMPLES = {"scores": 64, f"below {MANY}": 128, f"from {MANY}": MANY}
"""What MLPs may be for -> samples that are measured."""


def chosen(x: Tensor, parameters: Sequence[Tensor], dtype: Dtype) -> Products | None:
    """Return how `dlrm.ops.mlp.mlp` multiplies here, None where torch's products are to be taken.

    These are where there are no kernels, where they cannot read x or the parameters, and where they
    are slower (`dlrm.ops.choice`). What is scored has one choice, because a score must not depend
    on how many others there are.
    """
    if (
        x.dim() == 2
        and x.shape[0] > 0
        and x.shape[1] == parameters[0].shape[1]
        and x.dtype in cpu.DTYPES
    ):
        return chosen_for(parameters, dtype, rows=x.shape[0] if torch.is_grad_enabled() else 0)
    return None


def chosen_for(parameters: Sequence[Tensor], dtype: Dtype, *, rows: int = 0) -> Products | None:
    """Return what `chosen` does for training steps of so many samples, of none for scores."""
    if not _readable(parameters):
        return None
    named, default = _ways(cpu.instruction_set(), dtype)
    task = "scores" if not rows else f"{'below' if rows < MANY else 'from'} {MANY}"
    # Torch's products of a sample may depend on how many others there are.
    names = [name for name in named if rows or default == "torch" or name != "torch"]
    way = choices.chosen(what := f"mlp {dtype} {task}")
    if way not in names:
        prepared = cache(lambda way: _prepared(named[way], dtype, task))
        way = choices.fastest(what, names, default, lambda way: prepared(way)())
    return named[way]


def _readable(parameters: Sequence[Tensor]) -> bool:
    # Small batches notice each microsecond here, hence `map`.
    return (
        {*map(_DTYPE, parameters)} == {torch.float32}
        and all(map(Tensor.is_contiguous, parameters))
        and backend(parameters[0]) is cpu
    )


@cache
def _ways(isa: str, dtype: Dtype) -> tuple[dict[str, Products | None], str]:
    """Return the ways to multiply by their names, and the one that is taken where none is measured.

    That is ours for AVX-512, but for bfloat16 on a CPU with AMX, which multiplies it several times
    faster: there torch's, which uses it. Without oneDNN's products of bfloat16 torch's are none to
    choose: on AVX2 they took 8 to 12 times as long as ours.
    """
    if os.environ.get("DLRM_KERNELS") == "tiles" and dtype == "bf16":
        kind: Products = "tiles" if library.native.multiplies_tiles() else "emulated"
        return {f"amx {kind}": kind}, f"amx {kind}"
    ways: dict[str, Products | None] = {}
    if dtype == "fp32":
        ways[isa] = "fp32"
    elif library.native.multiplies_bf16():
        ways[f"{isa} bf16"] = "bf16"
    default = next(iter(ways), "torch")
    tiles = bool(library.native.multiplies_tiles()) and dtype == "bf16"
    if tiles:
        ways["amx tiles"] = "tiles"
    if dtype == "fp32" or products.takes_bf16() or not ways:
        ways["torch"] = None
        if isa != "avx512" or tiles:
            default = "torch"
    return ways, default


def _prepared(ours: Products | None, dtype: Dtype, task: str) -> Callable[[], object]:
    """Return what takes the MLPs through a step of random samples, or scores them."""
    drawn = torch.Generator().manual_seed(0)
    runs = []
    for sizes in (BOTTOM, TOP):
        shapes = [shape for n, k in pairwise(sizes) for shape in ((k, n), (k,))]
        layers = [torch.randn(shape, generator=drawn).mul_(0.05) for shape in shapes]
        x = torch.randn(SAMPLES[task], sizes[0], generator=drawn)
        relu = sizes is BOTTOM
        if task != "scores":
            runs.append(partial(_step, ours, x, layers, dtype, relu))
        elif ours is None:
            runs.append(partial(products.Rounded(layers, DTYPES[dtype], relu_last=relu), x))
        else:
            runs.append(partial(Packed(layers, ours, relu_last=relu), x))
    return lambda: [run() for run in runs]


def _step(
    ours: Products | None, x: Tensor, layers: Sequence[Tensor], dtype: Dtype, relu: bool
) -> None:
    """Take an MLP forwards and backwards; of the numbers at the bottom nobody needs gradients."""
    wanted = [tensor.requires_grad_() for tensor in (layers if relu else (x, *layers))]
    with torch.enable_grad():
        if ours is None:
            out = products.mlp(x, layers, DTYPES[dtype], relu_last=relu)
        else:
            out = mlp(x, layers, ours, relu_last=relu)
        # Asked of more than one number, torch would import sympy, for a quarter of a second.
        torch.autograd.grad(out.sum(), wanted)
