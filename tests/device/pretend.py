"""A device that is none: its tensors keep their numbers on the CPU and refuse to meet a CPU tensor.

No GPU is needed to see that nothing forgets to move a tensor: whatever meets one that was left
behind raises an error, and all numbers are those of the CPU, bit for bit, because it is the CPU
that computes them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"

_aten = torch.ops.aten
_COPIES = (_aten._to_copy, _aten.copy_, _aten._copy_from)


class PretendTensor(Tensor):
    """A tensor on the pretend device."""

    inner: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    """Where its numbers are."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "PretendTensor":
        """Return a tensor whose numbers are those of `inner`."""
        options: dict[str, Any] = {"layout": torch.sparse_coo}
        if inner.layout == torch.strided:
            options = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        wrapped = Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=torch.device(NAME, 0), **options
        )
        wrapped.inner = inner
        return wrapped

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"PretendTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute on the CPU, and refuse what a device would refuse."""
        kwargs = dict(kwargs or {})
        tensors = [a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        copies = function.overloadpacket in _COPIES
        for tensor in tensors:
            # As on a GPU, a number that stands for itself may come from anywhere.
            if not copies and not isinstance(tensor, cls) and tensor.dim() > 0:
                raise RuntimeError(
                    f"{function}: a CPU tensor {tuple(tensor.shape)} meets the device {NAME}"
                )
        wrappers = {id(t.inner): t for t in tensors if isinstance(t, PretendTensor)}
        args, kwargs = pytree.tree_map(_inner, (args, kwargs))
        result = function(*args, **kwargs)
        if target is not None and torch.device(target).type == "cpu":
            return result.clone() if id(result) in wrappers else result
        return pytree.tree_map(lambda value: _wrapped(value, wrappers), result)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, PretendTensor) else value


def _wrapped(value: Any, wrappers: dict[int, PretendTensor]) -> Any:
    """Return a result on the device; what was changed in place is the tensor that it was."""
    if not isinstance(value, Tensor):
        return value
    known = wrappers.get(id(value))
    if known is not None:
        return known
    # In inference mode torch would count versions of a view, which such a wrapper has none of.
    with torch.inference_mode(False):
        return PretendTensor(value)


def install() -> torch.library.Library:
    """Let torch know the device; it lasts as long as the process, and the library must be kept."""
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")

    def empty(size: Any, dtype: Any = None, **_: Any) -> Tensor:
        return PretendTensor(torch.empty(size, dtype=dtype))

    def empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Tensor:
        return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        _inner(target).copy_(_inner(source))
        return target

    def arange(start: Any, end: Any = None, step: Any = 1, dtype: Any = None, **_: Any) -> Tensor:
        # Torch would make an empty tensor and change its size, which a wrapper cannot.
        bounds = (0, start) if end is None else (start, end)
        return PretendTensor(torch.arange(*bounds, step, dtype=dtype))

    def tril_indices(row: int, col: int, offset: int = 0, dtype: Any = None, **_: Any) -> Tensor:
        return PretendTensor(torch.tril_indices(row, col, offset, dtype=dtype or torch.int64))

    library.impl("tril_indices", tril_indices, "PrivateUse1")
    for name in ("arange", "arange.start", "arange.start_step"):
        library.impl(name, arange, "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    return library
