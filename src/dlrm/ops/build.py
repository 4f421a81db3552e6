"""Compiles the CPU kernels in `native/` for an instruction set; see dlrm.compiler.

They use the OpenMP library that torch has loaded: a second one would bring a second pool of threads
to fight over the same cores.
"""

import re
import sys
from pathlib import Path

import torch

from dlrm import compiler

FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd"]
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


def openmp_libraries() -> set[str]:
    """Return the files of the OpenMP libraries that this process has loaded (Linux)."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return set()
    return set(re.findall(r"(/\S*/lib(?:gomp|iomp5|omp)\b[^/\s]*\.so[^/\s]*)", maps))


def _openmp_flags(version: str) -> list[str]:
    if "clang" in version or sys.platform != "linux":
        return []  # one thread
    beside_torch = Path(torch.__file__).parent / "lib"
    for library in sorted(openmp_libraries(), key=lambda file: str(beside_torch) not in file):
        return ["-fopenmp", library]
    return ["-fopenmp"]


def compiled(isa: str) -> Path:
    """Return the shared library for an instruction set, compiling it unless it is there already.

    Args:
        isa: A key of `ISAS`.

    Raises:
        compiler.BuildError: There is no compiler, it fails, or the cache cannot be written.

    """
    openmp = _openmp_flags(compiler.compiler()[1])
    return compiler.compiled(
        f"kernels-{isa}",
        Path(__file__).parent / "native",
        [*FLAGS, *ISAS[isa], *openmp[:1]],
        link=openmp[1:] or openmp,
        what=f"its CPU kernels for {isa}",
    )
