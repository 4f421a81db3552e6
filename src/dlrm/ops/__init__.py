"""The kernels behind embeddings, interactions and sparse updates, one signature each.

    reference    plain torch: the oracle, and what runs everywhere
    cpu          C++, compiled at first use

`backend(weight).lookup(weight, rows)` runs on the best that fits the tensor. `$DLRM_KERNELS` forces
one: `reference`, `cpu`, or an instruction set: `avx512`, `avx2`, `portable`. `tiles` is cpu, and
multiplies bfloat16 in tiles, emulated where the CPU has none. `default` takes what the machine has.
With any of them nothing is measured (`choice`).
"""

import os
import sys
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from dlrm.errors import ConfigError, unknown
from dlrm.ops import cpu, reference
from dlrm.ops.build import ISAS

__all__ = [
    "backend",
    "cpu",
    "dense_backend",
    "describe",
    "forced_reference",
    "id_backend",
    "reference",
]


def backend(tensor: Tensor):
    """Return the module whose kernels run on this tensor: `cpu` or `reference`.

    Raises:
        ConfigError: `$DLRM_KERNELS` forces what this machine cannot run.

    """
    if (
        tensor.is_cpu
        and tensor.dtype in cpu.DTYPES
        and tensor.is_contiguous()
        and not torch.compiler.is_compiling()  # a compiler can look into torch's own operations
        and _compiled()
    ):
        return cpu
    return reference


def id_backend(ids: Tensor):
    """Return the module whose kernels read these ids, however tables are stored."""
    if ids.is_cpu and not torch.compiler.is_compiling() and _compiled():
        return cpu
    return reference


def dense_backend(weights: Sequence[Tensor], grads: Sequence[Tensor]):
    """Return the module whose dense updates run on all of these parameters together."""
    if cpu.takes(weights, grads) and not torch.compiler.is_compiling() and _compiled():
        return cpu
    return reference


def forced_reference() -> bool:
    """Return whether `$DLRM_KERNELS` asks for plain torch, which computes alike on every device."""
    return os.environ.get("DLRM_KERNELS") == "reference"


def describe() -> str:
    """Return what runs on CPU tensors: `cpu (avx512)` or `reference`."""
    return f"cpu ({cpu.instruction_set()})" if _compiled() else "reference"


@cache
def _compiled() -> bool:
    forced = os.environ.get("DLRM_KERNELS", "")
    if forced_reference():
        return False
    if forced and forced not in (names := ("reference", "cpu", *ISAS, "tiles", "default")):
        raise unknown("DLRM_KERNELS", forced, names)
    reason = cpu.use(forced) if forced in ISAS else cpu.available()
    if reason is None:
        return True
    if forced not in ("", "default"):
        raise ConfigError(f"DLRM_KERNELS is {forced}, but its kernels cannot run here: {reason}")
    sys.stderr.write(f"dlrm: no kernels of its own, plain torch instead (slower): {reason}\n")
    return False
