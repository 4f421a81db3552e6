"""Which hardware counters this process can read; many virtual machines have none."""

import ctypes
import os
import platform
import struct
import sys

CONFIGS = {"cycles": 0, "instructions": 1, "cache-misses": 3}
"""Counter -> PERF_COUNT_HW_* of linux/perf_event.h."""
CALLS = {"x86_64": 298, "aarch64": 241}
"""Processor -> number of the system call perf_event_open."""

_HARDWARE = 0
_SIZE = 64
"""Of the first version of perf_event_attr, which every kernel takes."""
_EXCLUDE_KERNEL_AND_HYPERVISOR = 1 << 5 | 1 << 6
_MISSING_BYTES = 1 << 24
"""Of fresh memory: filling it misses every cache."""


def readable() -> tuple[str, ...]:
    """Return the counters that can be opened and that count."""
    return tuple(name for name, config in CONFIGS.items() if _counts(config))


def _counts(config: int) -> bool:
    number = CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    # struct perf_event_attr: type, size, config, period, sample_type, read_format, flags, ...
    values = (_HARDWARE, _SIZE, config, 0, 0, 0, _EXCLUDE_KERNEL_AND_HYPERVISOR)
    attributes = struct.pack("=IIQQQQQ", *values).ljust(_SIZE, b"\0")
    this_process, any_cpu, no_group, no_flags = 0, -1, -1, ctypes.c_ulong(0)
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    descriptor = call(ctypes.c_long(number), attributes, this_process, any_cpu, no_group, no_flags)
    if descriptor < 0:
        return False
    try:
        before = _read(descriptor)
        bytes(bytearray(_MISSING_BYTES))
        return _read(descriptor) > before
    except (OSError, struct.error):
        return False
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> int:
    return struct.unpack("=Q", os.read(descriptor, 8))[0]
