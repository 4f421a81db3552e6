"""Run the tests of all kernels with AddressSanitizer and UndefinedBehaviorSanitizer (GCC, Linux).

    python tests/ops/sanitize.py

First a lookup that reads outside its table must be caught; then the tests must pass.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

OUTSIDE = """
import torch
from dlrm.ops import backend
weight = torch.zeros(4, 16)
backend(weight).lookup(weight, torch.tensor([4]))
"""
ORACLES = [
    *("ops/test_lookup.py", "ops/test_updates.py", "ops/test_l2.py", "ops/test_dense.py"),
    *("ops/test_layers.py", "ops/test_bag_gradient.py", "ops/test_mlp.py", "ops/test_dlrm.py"),
    "data/test_kernels.py",
]
"""The tests of all kernels against their oracles."""


def library(name: str) -> str:
    """Return the path of a runtime library of the compiler."""
    printed = subprocess.run(
        ["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return printed.stdout.strip()


def main() -> None:
    folder = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as cache:
        build = {"DLRM_CACHE": cache, "DLRM_KERNELS": "cpu"}
        build["DLRM_CXXFLAGS"] = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined"
        # Python and torch leave memory to the end of the process; that is no concern of ours.
        sanitizer = {
            "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
            "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:new_delete_type_mismatch=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        }
        # Compiled without the preloaded libraries: the compiler would run under them.
        compile_all = (
            "from dlrm.data import kernels\nfrom dlrm.ops import build\n"
            "for isa in build.supported(): build.compiled(isa)\nkernels.build()"
        )
        plain = {**os.environ, **build, "PYTHONPATH": str(folder.parent / "src")}
        subprocess.run([sys.executable, "-c", compile_all], env=plain, check=True)
        environment = {**plain, **sanitizer}
        outside = subprocess.run(
            [sys.executable, "-c", OUTSIDE],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if "heap-buffer-overflow" not in outside.stderr:
            raise SystemExit(f"a read outside the table was not caught:\n{outside.stderr}")
        print("a read outside the table is caught", flush=True)
        tests = [str(folder / name) for name in ORACLES]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
