"""Compiles the CPU kernels in `native/` for an instruction set; see dlrm.compiler.

They bring their own threads (`native/pool.h`), which take nothing from torch's OpenMP: its regions
wait for threads that the system has put aside.
"""

from pathlib import Path

import torch

from dlrm import compiler

FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd", "-pthread"]
"""None lets the compiler reorder a sum or forget that a number can be infinite."""

AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]

ISAS = {"avx512": [*AVX2, *AVX512], "avx2": AVX2, "portable": []}
"""Instruction set -> its compiler flags, the fastest first."""


def supported() -> list[str]:
    """Return the instruction sets that this machine has, the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability.startswith("AVX512"):
        return ["avx512", "avx2", "portable"]
    return ["avx2", "portable"] if capability == "AVX2" else ["portable"]


def compiled(isa: str) -> Path:
    """Return the shared library for an instruction set, compiling it unless it is there already.

    Args:
        isa: A key of `ISAS`.

    Raises:
        compiler.BuildError: There is no compiler, it fails, or the cache cannot be written.

    """
    return compiler.compiled(
        f"kernels-{isa}",
        Path(__file__).parent / "native",
        [*FLAGS, *ISAS[isa]],
        link=["-pthread"],
        what=f"its CPU kernels for {isa}",
    )
