"""Compiles C++ with the machine's compiler, once, and keeps the result.

    sources  ->  ~/.cache/dlrm/<name>-<key>.so

The key is a hash of everything that decides what comes out: sources, flags, compiler, the names of
linked libraries. The libraries have a plain C ABI and are called with ctypes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")

INSTALL = "install one, e.g. `apt install g++`"


class BuildError(Exception):
    """A library cannot be compiled here; says why and what to do."""


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


def compiled(
    name: str, folder: Path, flags: Sequence[str] = (), *, link: Sequence[str] = (), what: str
) -> Path:
    """Return a shared library, compiling it unless it is there already.

    `$DLRM_CXXFLAGS` adds compiler flags.

    Args:
        name: Beginning of the library's file name.
        folder: Where its sources are: one `*.cpp`, and what it includes, `*.h`.
        flags: Compiler flags beside FLAGS.
        link: Flags of the linker, or libraries.
        what: What is being compiled, for the line that says so.

    Raises:
        BuildError: There is no compiler, it fails, or the cache cannot be written.

    """
    program, version = compiler()
    flags = [*FLAGS, *flags, *os.environ.get("DLRM_CXXFLAGS", "").split()]
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".h", ".cpp"))
    kept = cache()
    target = kept / f"{name}-{key(sources, flags, version, link)}.so"
    if target.exists():
        return target
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(kept / "lock"):
            if not target.exists():
                sys.stderr.write(f"dlrm: compiling {what}, once ...\n")
                _compile(program, sources, flags, link, target)
    except OSError as error:
        raise BuildError(
            f"the cache {kept} cannot be written ({error}); set DLRM_CACHE to a folder that can"
        ) from error
    return target


def _compile(
    program: str, sources: Sequence[Path], flags: Sequence[str], link: Sequence[str], target: Path
) -> None:
    units = [str(path) for path in sources if path.suffix == ".cpp"]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as scratch:
        unit, library = Path(scratch) / "unit.o", Path(scratch) / "library.so"
        # In two steps: with -fopenmp a compiler would link its own OpenMP library.
        _run([program, *flags, "-c", *units, "-o", str(unit)])
        sanitize = [flag for flag in flags if flag.startswith("-fsanitize")]
        _run([program, "-shared", *sanitize, str(unit), *link, "-o", str(library)])
        library.replace(target)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise BuildError(f"the compiler {command[0]} failed: {lines[0].strip()}")


def cache() -> Path:
    """Return the folder of compiled libraries: `$DLRM_CACHE`, else `~/.cache/dlrm`."""
    if os.environ.get("DLRM_CACHE"):
        return Path(os.environ["DLRM_CACHE"])
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dlrm"


def key(
    sources: Sequence[Path], flags: Sequence[str], version: str, link: Sequence[str] = ()
) -> str:
    """Return a hash of what decides what comes out of the compiler."""
    known = hashlib.sha256()
    for text in (version, *flags, *(Path(part).name for part in link)):
        known.update(text.encode() + b"\0")
    for source in sources:
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
