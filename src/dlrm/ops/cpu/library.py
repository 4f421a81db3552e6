"""The compiled library behind the CPU kernels: loaded at first use."""

from ctypes import c_double, c_float, c_int, c_int64, c_uint32, c_void_p
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from dlrm import compiler
from dlrm.ops import build

DTYPES = (torch.float32, torch.bfloat16)

_UPDATE = [
    c_int, c_void_p, c_void_p, c_uint32, *[c_void_p] * 4, c_int64, c_int64, c_float, c_int, c_float,
    c_int64,
]  # fmt: skip
_BAGS = [c_void_p, c_void_p, c_int64, c_int64]
_DENSE = [c_void_p, c_int64, c_float, c_float, c_int]
_DOT = [c_void_p, c_int, c_void_p, c_int]

_MLP = [c_void_p, c_int64, c_int64, c_int, c_int, c_int]

_DLRM = [c_void_p, c_int64, c_void_p, c_int64, c_int64, c_int, c_int64, c_int, c_int]
_INPUTS = [*[c_void_p] * 2, c_int, *[c_void_p] * 6]

_ARGUMENTS: dict[str, list[type]] = {
    "rows_of": [c_void_p, c_int, *[c_void_p] * 3, *[c_int64] * 3, c_void_p, c_int],
    "lookup": [c_void_p, c_int, c_void_p, c_int64, c_int64, c_void_p, c_int],
    "pooled_lookup": [
        c_void_p, c_int, c_void_p, *_BAGS, c_int64, c_void_p, c_void_p, c_int,
    ],
    "bags_of": [*_BAGS, c_void_p, c_int],
    "weights_gradient": [c_void_p, c_int, c_void_p, *_BAGS, c_void_p, c_int64, c_void_p, c_int],
    "sgd_update": _UPDATE,
    "adagrad_update": [*_UPDATE, c_void_p, c_float],
    "rowwise_adagrad_update": [*_UPDATE, c_void_p, c_float],
    "adam_update": [*_UPDATE, c_void_p, c_float, c_float, c_float],
    "dense_sgd": _DENSE,
    "dense_adagrad": [*_DENSE, c_float],
    "dense_adam": [*_DENSE, c_float, c_float, c_float],
    "dot_interaction": [*_DOT, c_int64, c_int64, c_int64, c_int, c_void_p, c_int],
    "dot_interaction_gradient": [
        *_DOT, c_void_p, c_int64, c_int64, c_int64, c_int, c_void_p, c_void_p, c_int,
    ],
    "relu_gradient": [c_void_p, c_void_p, c_int, c_int64, c_int64, c_void_p, c_void_p, c_int],
    "bce": [c_void_p, c_void_p, c_int64, c_void_p, c_int],
    "multiplies_bf16": [],
    "multiplies_tiles": [],
    "mlp_bytes": _MLP,
    "mlp_packed_bytes": _MLP,
    "mlp_pack": [*_MLP, *[c_void_p] * 2, c_int],
    "mlp_forward": [*_MLP, *[c_void_p] * 6, c_int, c_float, c_int],
    "mlp_backward": [*_MLP, *[c_void_p] * 7, c_float, c_int],
    "dlrm_bytes": _DLRM,
    "dlrm_forward": [*_DLRM, *_INPUTS, *[c_void_p] * 2, c_int],
    "dlrm_backward": [*_DLRM, *_INPUTS, *[c_void_p] * 6, c_int],
    "dlrm_step": [*_DLRM, *_INPUTS, *[c_void_p] * 6, c_int],
}  # fmt: skip
"""Exported function -> its arguments, as `native/kernels.cpp` declares them."""

_RESULTS: dict[str, type] = {
    "rows_of": c_int64,
    "bce": c_double,
    "multiplies_bf16": c_int,
    "multiplies_tiles": c_int,
    "mlp_bytes": c_int64,
    "mlp_packed_bytes": c_int64,
    "dlrm_bytes": c_int64,
    "dlrm_forward": c_int64,
    "dlrm_step": c_int64,
}

native: Any = None
"""ctypes.CDLL with the functions above, once `use` has loaded one."""
_isa = _name = ""
_lock = Lock()


def use(isa: str) -> str | None:
    """Load the kernels for an instruction set, compiling them if need be.

    Returns:
        Why that cannot be done, or None.

    """
    global native, _isa, _name
    if isa not in build.supported():
        return f"this CPU has no {isa} (it has {', '.join(build.supported())})"
    with _lock:
        if _isa == isa:
            return None
        try:
            file = build.compiled(isa)
            library = compiler.load(file, _ARGUMENTS, _RESULTS)
        except compiler.BuildError as error:
            return str(error)
        native, _isa, _name = library, isa, file.stem
    return None


def available() -> str | None:
    """Return why these kernels cannot run here, or None; loads the fastest unless one is loaded."""
    return None if native is not None else use(build.supported()[0])


def instruction_set() -> str:
    """Return the instruction set of the loaded kernels, e.g. `avx512`."""
    return _isa


def name() -> str:
    """Return the name of the loaded library, another one for other kernels or another CPU."""
    return _name


def pointer(tensor: Tensor | None) -> int | None:
    """Return the address of a tensor's first number; None for none."""
    return None if tensor is None else tensor.data_ptr()
