"""A golden run on every path that numbers can take; `make golden` has all of them, and oracles."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat.session import assert_same_lines, read
from dlrm.ops import build

from .paths import PATHS

RUN = "from dlrm.compat.dlrm_s_pytorch import main; raise SystemExit(main())"


# What has no path of its own is in tests/compat, and torch masked or not runs the same kernels.
@pytest.mark.parametrize("name", ["masked", "portable", "tiles", "reference"])
def test_what_the_original_prints_comes_by_every_path(name: str, workdir: Path):
    if PATHS[name]["DLRM_KERNELS"] in set(build.ISAS) - set(build.supported()):
        pytest.skip(f"this CPU has no {PATHS[name]['DLRM_KERNELS']}")
    arguments, expected = read("07_bce_medium_debug")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env={**os.environ, **PATHS[name]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_same_lines(done.stdout.splitlines(), expected)
