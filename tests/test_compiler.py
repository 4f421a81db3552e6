"""What decides the name of a compiled library, and which libraries are loaded.

Building the kernels is tested with tests/ops and data.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from ctypes import c_int
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm import compiler
from dlrm.compiler import BuildError, cache, compiled, key, load

SOURCE = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'


def has_compiler() -> bool:
    try:
        compiler.compiler()
    except BuildError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "answer.cpp").write_text(SOURCE)
    return folder


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a cache, with a folder for temporary files of its own."""
    monkeypatch.setattr(compiler, "_private_folders", {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("DLRM_CACHE", str(tmp_path / "kept"))
    yield tmp_path / "kept"
    # Others could write it, and pytest keeps it for a while.
    if (tmp_path / "kept").exists():
        (tmp_path / "kept").chmod(0o700)


def answer(sources: Path) -> int:
    library = load(compiled("answer", sources, what="an answer"), {"answer": []}, {"answer": c_int})
    return library.answer()


def test_the_key_depends_on_sources_flags_compiler_cpu_and_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, other = tmp_path / "a.cpp", tmp_path / "b.cpp"
    source.write_text("int a;")
    other.write_text("int b;")
    header, longer = tmp_path / "a.h", tmp_path / "b.h"
    header.write_text("int c;")
    longer.write_text("int a;int c;")
    keys = [
        key([source], ["-O3"], "gcc 12"),
        key([other], ["-O3"], "gcc 12"),
        key([source], ["-O2"], "gcc 12"),
        key([source], ["-O3"], "gcc 13"),
        key([source], ["-O3"], "gcc 12", ["-fopenmp"]),
        key([source, header], ["-O3"], "gcc 12"),
        key([longer], ["-O3"], "gcc 12"),
    ]
    header.write_text("int d;")
    keys.append(key([source, header], ["-O3"], "gcc 12"))
    source.write_text("int e;")
    keys.append(key([source], ["-O3"], "gcc 12"))
    monkeypatch.setattr(compiler, "cpu", lambda: "another")
    keys.append(key([source], ["-O3"], "gcc 12"))
    assert len(set(keys)) == len(keys)
    assert key([source], ["-O3"], "gcc 12", ["/x/libgomp.so"]) == key(
        [source], ["-O3"], "gcc 12", ["/y/libgomp.so"]
    )


@needs_compiler
def test_a_changed_header_is_compiled_anew(kept, tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.cpp").write_text('#include "number.h"\n' + SOURCE.replace("42", "NUMBER"))
    for number in (42, 43, 42):
        (folder / "number.h").write_text(f"#define NUMBER {number}\n")
        assert answer(folder) == number
    assert len(list(kept.glob("*.so"))) == 2


@pytest.mark.parametrize(
    ("cpuinfo", "named"),
    [
        (
            "processor : 0\nmodel name\t: A CPU\nflags\t\t: fpu amx_tile avx2 fma tsc\n\n"
            "processor : 1\n",
            "A CPU amx_tile avx2 fma",
        ),
        ("processor\t: 0\nFeatures\t: fp asimd sve\n", " asimd sve"),
        (None, ""),
    ],
)
def test_a_cpu_is_its_name_and_its_instruction_sets(tmp_path, monkeypatch, cpuinfo, named):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(compiler, "CPUINFO", tmp_path / "cpuinfo")
    assert compiler.cpu.__wrapped__() == f"{platform.machine()} {named}"


@given(mode=st.integers(0, 0o77).map(lambda bits: 0o700 | bits), above=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_cache_that_others_may_write_is_not_used(mode: int, above: bool):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        top = Path(folder).resolve()
        kept = top / "above" / "kept"
        kept.mkdir(parents=True)
        patch.setattr(compiler, "_private_folders", {})
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("DLRM_CACHE", str(kept))
        (kept.parent if above else kept).chmod(mode)
        expected = top / f"dlrm-{os.geteuid()}" if mode & 0o22 else kept
        assert cache() == expected
        assert expected.stat().st_mode & 0o22 == 0


@needs_compiler
def test_a_library_in_a_cache_that_others_may_write_is_not_loaded(kept, sources, tmp_path, capfd):
    assert answer(sources) == 42
    kept.chmod(0o777)
    for library in kept.glob("answer*.so"):
        # A new file: the old one is loaded.
        library.unlink()
        library.write_bytes(b"somebody else's")
    capfd.readouterr()
    assert answer(sources) == answer(sources) == 42
    err = capfd.readouterr().err
    assert err.count("others may write") == 1
    assert list((tmp_path / f"dlrm-{os.geteuid()}").glob("answer*.so"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_cache_of_another_user_is_not_used(kept, tmp_path, capfd):
    kept.mkdir()
    os.chown(kept, 54321, 54321)
    assert cache() == tmp_path / f"dlrm-{os.geteuid()}"
    assert f"{kept} belongs to another user" in capfd.readouterr().err


def test_a_private_folder_that_somebody_has_taken_is_not_used(kept, tmp_path, capfd):
    kept.write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"dlrm-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    folder = cache()
    assert folder.parent == tmp_path
    assert folder.name.startswith("dlrm-")
    assert folder.stat().st_mode & 0o77 == 0
    assert f"{kept} cannot be used" in capfd.readouterr().err
    shutil.rmtree(folder)


def test_a_user_without_a_home_has_a_cache(kept, tmp_path, monkeypatch, capfd):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DLRM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache() == cache() == tmp_path / f"dlrm-{os.geteuid()}"
    assert capfd.readouterr().err.count("home directory") == 1


@needs_compiler
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content.replace(b"answer", b"artist"),
        lambda content: bytes([content[0] ^ 1]) + content[1:],
    ],
)
def test_a_damaged_library_is_compiled_anew(
    kept: Path, sources: Path, damage: Callable[[bytes], bytes]
):
    library = compiled("answer", sources, what="an answer")
    library.write_bytes(damage(library.read_bytes()))
    assert answer(sources) == 42


@needs_compiler
def test_a_function_that_a_library_lacks_is_named(kept, sources):
    library = compiled("answer", sources, what="an answer")
    with pytest.raises(BuildError, match="question"):
        load(library, {"question": []}, {})
