"""Building and choosing kernels: cache, fallback, no OpenMP of their own."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlrm.compiler import BuildError, compiler
from dlrm.ops import build, cpu, reference

SCRIPT = """
import re
from pathlib import Path
import torch
from dlrm.ops import backend, describe

def openmp():
    maps = Path("/proc/self/maps")
    found = re.findall(r"/lib(?:gomp|iomp5|omp)[^/\\s]*", maps.read_text()) if maps.exists() else []
    return set(found)

before = openmp()
weight = torch.nn.Parameter(torch.ones(4, 2))
kernels = backend(weight)
kernels.lookup(weight, torch.tensor([1, 1])).sum().backward()
kernels.sgd_update(weight.data, weight.grad._indices()[0], weight.grad._values(), 0.5)
assert weight[1].tolist() == [0, 0], weight
assert openmp() == before, openmp()
print(describe())
"""


# How fast the kernels are, does not matter here; that nothing is warned of does, for which the
# compiler has to follow what values may be.
QUICK = {"DLRM_KERNELS": "portable", "DLRM_CXXFLAGS": "-O1 -Wall -Wextra -Werror"}


def start(tmp_path: Path, script: str = SCRIPT, **environment: str) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DLRM_") and k != "CXX"}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**inherited, "DLRM_CACHE": str(tmp_path / "cache"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=600)
    return process.returncode, out.strip(), err


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    empty = tmp_path / "empty"
    empty.mkdir()
    return {"PATH": str(empty)}


def has_compiler() -> bool:
    try:
        compiler()
    except BuildError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")


def test_both_backends_have_the_same_functions():
    public = {
        name: function
        for name, function in inspect.getmembers(cpu, inspect.isfunction)
        if function.__module__.startswith(cpu.__name__)
    }
    for chosen in ("use", "available", "instruction_set", "takes"):
        del public[chosen]
    for name, function in public.items():
        assert inspect.signature(function) == inspect.signature(getattr(reference, name)), name
    assert len(public) == 14


@needs_compiler
def test_two_processes_at_once_compile_once_without_a_warning_and_a_third_not_at_all(tmp_path):
    both = [finish(p) for p in [start(tmp_path, **QUICK) for _ in range(2)]]
    assert [(code, out) for code, out, _ in both] == [(0, "cpu (portable)")] * 2, both
    assert sum("compiling its CPU kernels for portable" in err for _, _, err in both) == 1
    libraries = list((tmp_path / "cache").glob("*.so"))
    assert len(libraries) == 1
    assert finish(start(tmp_path, **QUICK)) == (0, "cpu (portable)", "")
    assert list((tmp_path / "cache").glob("*.so")) == libraries
    assert not list((tmp_path / "cache").glob(".building*"))


def test_without_a_compiler_plain_torch_does_it_and_says_so_once(tmp_path, no_compiler):
    code, out, err = finish(start(tmp_path, **no_compiler))
    assert (code, out) == (0, "reference"), err
    assert err.count("dlrm:") == 1
    assert "there is no C++ compiler" in err
    assert "apt install g++" in err


def test_a_compiler_that_fails_is_quoted(tmp_path):
    broken = tmp_path / "c++"
    broken.write_text(
        "#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'error: no luck' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    code, out, err = finish(start(tmp_path, CXX=str(broken)))
    assert (code, out) == (0, "reference"), err
    assert "error: no luck" in err


def test_a_forced_backend_that_cannot_run_is_an_error(tmp_path, no_compiler):
    code, _, err = finish(start(tmp_path, DLRM_KERNELS="cpu", **no_compiler))
    assert code == 1
    assert "ConfigError: DLRM_KERNELS is cpu" in err
    assert "there is no C++ compiler" in err


def test_an_unknown_backend_lists_the_choices(tmp_path):
    code, _, err = finish(start(tmp_path, DLRM_KERNELS="sse9"))
    assert code == 1
    assert "reference, cpu, avx512, avx2, portable" in err


def test_the_reference_can_be_forced_and_needs_no_cache(tmp_path):
    assert finish(start(tmp_path, DLRM_KERNELS="reference")) == (0, "reference", "")
    assert not (tmp_path / "cache").exists()


def test_an_instruction_set_that_the_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(build, "supported", lambda: ["portable"])
    assert cpu.use("avx512") == "this CPU has no avx512 (it has portable)"
