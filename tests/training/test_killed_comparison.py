"""A comparison that is killed in any moment goes on to the result of one that was not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("members", ["1", "2"])
def test_it_goes_on_to_the_same_result(tmp_path, members):
    script = Path(__file__).with_name("killed_comparison.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), members],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["different"] == []
    kinds = " ".join(found["killed"])
    for change in ("files.json", "step-N", "evaluation-test.json", "open metrics.jsonl"):
        assert change in kinds
