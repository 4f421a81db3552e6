"""Compiles C++ with the machine's compiler, once, and keeps the result.

    sources  ->  ~/.cache/dlrm/<name>-<key>.so

The key is a hash of everything that decides what comes out: sources, flags, compiler, the CPU, the
names of linked libraries. Beside each library stands the hash of its content, so that a damaged one
is compiled anew. The libraries have a plain C ABI and are called with ctypes.

What is loaded is executed: only this user or root may be able to write it. Where others could, the
cache is a private folder among the temporary files instead.
"""

import atexit
import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache as cache_once
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = ("sse", "avx", "fma", "f16c", "bmi", "amx", "asimd", "sve", "i8mm", "bf16")
"""How the names of those instruction sets begin that compilers make use of: x86, then ARM."""

FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")

INSTALL = "install one, e.g. `apt install g++`"


class BuildError(Exception):
    """A library cannot be compiled here; says why and what to do."""


def compiler() -> tuple[str, str]:
    """Return the C++ compiler to use and its version, `$CXX` if set.

    Raises:
        BuildError: There is none.

    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if version.returncode == 0:
            return path, version.stdout
    raise BuildError(f"there is no C++ compiler ({', '.join(names)} not found); {INSTALL}")


def compiled(
    name: str, folder: Path, flags: Sequence[str] = (), *, link: Sequence[str] = (), what: str
) -> Path:
    """Return a shared library, compiling it unless it is there already.

    Args:
        name: Beginning of the library's file name.
        folder: Where its sources are: one `*.cpp`, and what it includes, `*.h`.
        flags: Compiler flags beside FLAGS and `$DLRM_CXXFLAGS`.
        link: Flags of the linker, or libraries.
        what: What is being compiled, for the line that says so.

    Raises:
        BuildError: There is no compiler, it fails, or the cache cannot be written.

    """
    program, version = compiler()
    flags = [*FLAGS, *flags, *os.environ.get("DLRM_CXXFLAGS", "").split()]
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".h", ".cpp"))
    cache_folder = cache()
    target = cache_folder / f"{name}-{key(sources, flags, version, link)}.so"
    if _is_whole(target):
        return target
    try:
        with (cache_folder / "lock").open("w") as lock:
            # Processes that start together compile once. Not every file system has locks; the
            # rename keeps what comes out whole there too.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(target):
                sys.stderr.write(f"dlrm: compiling {what}, once ...\n")
                _compile(program, sources, flags, link, target)
    except OSError as error:
        raise BuildError(
            f"the cache {cache_folder} cannot be written ({error}); set DLRM_CACHE to a folder "
            "that can"
        ) from error
    return target


def _compile(
    program: str, sources: Sequence[Path], flags: Sequence[str], link: Sequence[str], target: Path
) -> None:
    units = [str(path) for path in sources if path.suffix == ".cpp"]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as scratch:
        unit, library = Path(scratch) / "unit.o", Path(scratch) / "library.so"
        # In two steps, because flags of the linker follow what they are for.
        _run([program, *flags, "-c", *units, "-o", str(unit)])
        sanitize = [flag for flag in flags if flag.startswith("-fsanitize")]
        _run([program, "-shared", *sanitize, str(unit), *link, "-o", str(library)])
        # Whatever the umask: a library that a group may write is not loaded.
        library.chmod(0o755)
        digest = Path(scratch) / "digest"
        digest.write_text(_digest(library))
        library.replace(target)
        digest.replace(target.with_suffix(".sha256"))


def load(
    library: Path, arguments: Mapping[str, Sequence[type]], results: Mapping[str, type | None]
) -> Any:
    """Return a compiled library, its exported functions declared: types of arguments and results.

    Raises:
        BuildError: It cannot be loaded, or lacks a function.

    """
    try:
        loaded = ctypes.CDLL(str(library))
        for name, types in arguments.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = types, results.get(name)
    except (OSError, AttributeError) as error:
        raise BuildError(f"{library} cannot be used ({error}); remove it") from error
    return loaded


def _is_whole(library: Path) -> bool:
    """Return whether a library is there, as it was compiled, and safe to load."""
    try:
        whole = library.with_suffix(".sha256").read_text() == _digest(library)
    except (OSError, ValueError):
        return False
    return whole and _danger(library) is None


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise BuildError(f"the compiler {command[0]} failed: {lines[0].strip()}")


def cache() -> Path:
    """Return the folder of compiled libraries, made: `$DLRM_CACHE`, else `~/.cache/dlrm`.

    Where others could write what lies there, or there is no such folder to be had, it is a private
    one among the temporary files; a line on standard error says so, once.
    """
    above = os.environ.get("XDG_CACHE_HOME")
    folder = Path(os.environ.get("DLRM_CACHE") or f"{above or '~/.cache'}/dlrm")
    try:
        # There is a RuntimeError where the user has no home.
        folder = folder if os.environ.get("DLRM_CACHE") or above else Path.home() / ".cache/dlrm"
        for part in (*reversed(folder.parents), folder):
            if not part.is_dir():
                part.mkdir(mode=0o755, exist_ok=True)
        problem = _danger(folder)
    except (OSError, RuntimeError) as error:
        problem = f"{folder} cannot be used ({error})"
    return folder.resolve() if problem is None else _private(problem)


def _danger(path: Path) -> str | None:
    """Return why others could put something else at a path; None where only this user or root can.

    Whoever may write a folder may exchange what lies in it, so all folders above count. Where a
    folder has the sticky bit, as that of temporary files, others leave alone what is not theirs.
    """
    path = path.resolve()
    for part in (path, *path.parents):
        status = part.lstat()
        if status.st_uid not in (0, os.geteuid()):
            return f"{part} belongs to another user"
        shared = status.st_mode & stat.S_ISVTX and part != path
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not shared:
            return f"others may write {part}"
    return None


_private_folders: dict[str, Path] = {}
"""What is wrong with a cache -> the folder that is taken instead."""


def _private(problem: str) -> Path:
    """Return a folder that only this user can write, the same in all processes where it can be."""
    if problem not in _private_folders:
        folder = Path(tempfile.gettempdir()).resolve() / f"dlrm-{os.geteuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            safe = folder.resolve() == folder and _danger(folder) is None
        except OSError:
            safe = False
        if not safe:
            folder = Path(tempfile.mkdtemp(prefix="dlrm-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _private_folders[problem] = folder
        sys.stderr.write(f"dlrm: compiled code is kept in {folder}, because {problem}\n")
    return _private_folders[problem]


@cache_once
def cpu() -> str:
    """Return the name of this CPU and its instruction sets, as far as the system tells.

    A cache may be shared by machines of several kinds, and `$DLRM_CXXFLAGS` may say -march=native.
    """
    try:
        # The first core says it, within the first lines.
        with CPUINFO.open() as file:
            lines = file.read(1 << 13).splitlines()
    except OSError:
        lines = []
    known = {name.strip(): value for name, _, value in (line.partition(":") for line in lines)}
    words = f"{known.get('flags', '')} {known.get('Features', '')}".split()
    chosen = sorted({word for word in words if word.startswith(INSTRUCTIONS)})
    return " ".join((platform.machine(), known.get("model name", "").strip(), *chosen))


def key(
    sources: Sequence[Path], flags: Sequence[str], version: str, link: Sequence[str] = ()
) -> str:
    """Return a hash of what decides what comes out of the compiler."""
    known = hashlib.sha256()
    for text in (version, cpu(), *flags, *(Path(part).name for part in link)):
        known.update(text.encode() + b"\0")
    for source in sources:
        content = source.read_bytes()
        known.update(f"{source.name}\0{len(content)}\0".encode() + content)
    return known.hexdigest()[:16]
