"""`--enable-profiling`: what took how long, and a trace that Chrome and Perfetto open."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dlrm.compat.flags import Flags
from dlrm.files import replacing, write_bytes
from dlrm.parallel.world import World

TABLE, TRACE = Path("dlrm_s_pytorch.prof"), Path("dlrm_s_pytorch.json")
"""The names that the original's benchmark scripts look for, in the current folder."""


@contextmanager
def profiled(flags: Flags, world: World) -> Iterator[None]:
    """Profile what runs within, where the flags ask for it; the first process writes the files."""
    if not (flags.enable_profiling and world.first):
        yield
        return
    with torch.autograd.profiler.profile(record_shapes=True) as profile:
        yield
    assert profile is not None
    table = profile.key_averages().table(sort_by="self_cpu_time_total")
    write_bytes(TABLE, table.encode())
    with replacing(TRACE) as unfinished:
        profile.export_chrome_trace(str(unfinished))
