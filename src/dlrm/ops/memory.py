"""Requests to the operating system about memory; where refused, all works as before."""

import ctypes
import sys

from torch import Tensor

_HUGE_PAGE_BYTES = 2 << 20
_MADV_HUGEPAGE = 14
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def in_huge_pages(fresh: Tensor) -> Tensor:
    """Ask Linux for huge pages behind a tensor that nothing was written to yet.

    Rows are read at random; with pages of 4 kB nearly each one also misses the table of pages.

    Returns:
        The same tensor.

    """
    if sys.platform == "linux" and type(fresh) is Tensor and fresh.is_cpu:
        first = -(-fresh.data_ptr() // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        size = (fresh.data_ptr() + fresh.nbytes - first) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if size > 0:
            # Advice: where it is not taken, all works as before.
            advise = ctypes.CDLL(None).madvise
            advise(ctypes.c_void_p(first), ctypes.c_size_t(size), _MADV_HUGEPAGE)
    return fresh


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next step (glibc).

    A step allocates the same large tensors again and again. Given back each time, each page of them
    is taken, zeroed and mapped anew: a quarter of the time of lookups and updates of large batches.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
