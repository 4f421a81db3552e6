"""Run the golden runs and the tests of all kernels on every path that numbers can take.

    cd tests && python -m ops.paths [PATH ...]

What the original prints must come out of each, and each kernel must agree with its oracle.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.scripts import script
from ops.sanitize import ORACLES

TESTS = Path(__file__).parents[1]
PATHS: Mapping[str, Mapping[str, str]] = {
    "default": {"DLRM_KERNELS": "default"},
    "masked": {"DLRM_KERNELS": "default", **script("hardware").MASKS},
    "avx2": {"DLRM_KERNELS": "avx2"},
    "portable": {"DLRM_KERNELS": "portable"},
    "tiles": {"DLRM_KERNELS": "tiles"},
    "reference": {"DLRM_KERNELS": "reference"},
}
"""Path -> its variables: what this machine has; its CPU taken for one with AVX2 alone, by torch and
by us; our kernels for older CPUs beside torch for this one; bfloat16 in tiles, emulated where there
are none; plain torch."""
GOLDEN = ("compat/test_golden.py", "nn/test_mlp.py")


def main(names: Sequence[str]) -> int:
    failed = []
    for name in names or PATHS:
        tests = [*GOLDEN, *([] if name == "reference" else ORACLES)]
        print(f"== {name}: {' '.join(f'{k}={v}' for k, v in PATHS[name].items())}", flush=True)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        command += [str(TESTS / test) for test in tests]
        if subprocess.run(command, env={**os.environ, **PATHS[name]}, check=False).returncode:
            failed.append(name)
    print(f"FAILED: {', '.join(failed)}" if failed else "every path gives the same")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
