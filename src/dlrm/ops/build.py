"""Compiles the CPU kernels with the machine's C++ compiler, once, and keeps the result.

    native/*.cpp, *.h  ->  ~/.cache/dlrm/kernels-<isa>-<key>.so

The key is a hash of everything that decides what comes out: source, flags, compiler, OpenMP
library. The kernels have a plain C ABI and use the OpenMP library that torch has loaded: a second
one would bring a second pool of threads to fight over the same cores.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

SOURCES = sorted(
    p for p in (Path(__file__).parent / "native").iterdir() if p.suffix in (".h", ".cpp")
)

FLAGS = [
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]
"""None lets the compiler reorder a sum or forget that a number can be infinite."""

AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]

ISAS = {"avx512": [*AVX2, *AVX512], "avx2": AVX2, "portable": []}
"""Instruction set -> its compiler flags, the fastest first."""

INSTALL = "install one, e.g. `apt install g++`"


class BuildError(Exception):
    """The kernels cannot be compiled here; says why and what to do."""


def supported() -> list[str]:
    """Return the instruction sets that this machine has, the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability.startswith("AVX512"):
        return ["avx512", "avx2", "portable"]
    return ["avx2", "portable"] if capability == "AVX2" else ["portable"]


def compiler() -> tuple[str, str]:
    """Return the C++ compiler to use and its version, `$CXX` if set, else GCC if there is one.

    Raises:
        BuildError: There is none.

    """
    second_best: tuple[str, str] | None = None
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if version.returncode != 0:
            continue
        # Clang's OpenMP speaks to another library than the one that torch brings on Linux.
        if "clang" not in version.stdout:
            return path, version.stdout
        second_best = second_best or (path, version.stdout)
    if second_best is None:
        raise BuildError(f"there is no C++ compiler ({', '.join(names)} not found); {INSTALL}")
    return second_best


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

    `$DLRM_CXXFLAGS` adds compiler flags.

    Args:
        isa: A key of `ISAS`.

    Raises:
        BuildError: There is no compiler, it fails, or the cache cannot be written.

    """
    program, version = compiler()
    openmp = _openmp_flags(version)
    flags = [*FLAGS, *ISAS[isa], *os.environ.get("DLRM_CXXFLAGS", "").split()]
    folder = cache()
    target = folder / f"kernels-{isa}-{_key(flags, version, openmp)}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder / "lock"):
            if not target.exists():
                sys.stderr.write(f"dlrm: compiling its CPU kernels for {isa}, once ...\n")
                _compile(program, flags, openmp, target)
    except OSError as error:
        raise BuildError(
            f"the cache {folder} cannot be written ({error}); set DLRM_CACHE to a folder that can"
        ) from error
    return target


def _compile(program: str, flags: list[str], openmp: list[str], target: Path) -> None:
    units = [str(p) for p in SOURCES if p.suffix == ".cpp"]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as scratch:
        unit, library = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
        # In two steps: with -fopenmp a compiler would link its own OpenMP library.
        compile_only = [flag for flag in flags if flag != "-shared"]
        _run([program, *compile_only, *openmp[:1], "-c", *units, "-o", str(unit)])
        link = openmp[1:] or openmp
        sanitize = [flag for flag in flags if flag.startswith("-fsanitize")]
        _run([program, "-shared", *sanitize, str(unit), *link, "-o", str(library)])
        library.replace(target)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise BuildError(f"the compiler {command[0]} failed: {lines[0].strip()}")


def cache() -> Path:
    """Return the folder of compiled kernels: `$DLRM_CACHE`, else `~/.cache/dlrm`."""
    if os.environ.get("DLRM_CACHE"):
        return Path(os.environ["DLRM_CACHE"])
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dlrm"


def _key(flags: list[str], version: str, openmp: list[str]) -> str:
    known = hashlib.sha256()
    for text in (version, *flags, *(Path(part).name for part in openmp)):
        known.update(text.encode() + b"\0")
    for source in SOURCES:
        known.update(source.read_bytes())
    return known.hexdigest()[:16]


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Let processes that start together compile once; where locks do not work, each for itself."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as file:
        # Not every file system has locks; the rename keeps what comes out whole there too.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
