"""Damaged requests: `benchmarks/fuzz.py` sends a hundred thousand, here are some of them."""

import json
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_protocol import values

from bench.scripts import SCRIPTS, script
from dlrm import Predictor
from dlrm.serving.limits import RefusalError
from dlrm.serving.rows import MOST_DEPTH, MOST_KEYS, encode_rows

FRESH = random.SystemRandom().randrange(1 << 32)
cells = values | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary().map(repr)
rows = st.lists(st.dictionaries(st.sampled_from(["price", "tags", "x"]), cells), min_size=1)


@pytest.mark.parametrize("seed", [1, FRESH], ids=["fixed", "fresh"])
def test_every_damaged_request_is_answered_or_refused(folder: Path, tmp_path: Path, seed: int):
    """It runs in a process of its own: in this one other tests' memory comes and goes."""
    runs = [str(folder / "visits"), str(folder / "two")]
    words = [*runs, "--inputs", "3000", "--seed", str(seed), "--out", str(tmp_path / "rows.jsonl")]
    ended = subprocess.run(
        [sys.executable, str(SCRIPTS / "fuzz.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"seed {seed}: {ended.stdout}{ended.stderr}"
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (row["inputs"], row["failures"]) == (3000, 0)
    outcomes = row["outcomes"]
    assert all(outcomes[key] for key in ("read", "refused", "200", "400", "404", "413"))


def test_a_mutant_is_known_by_its_number(folder: Path):
    small_runs, mutants = script("small_runs"), script("mutants")
    one = mutants.Example("visits", small_runs.ROWS["visits"], {})
    sent = [mutants.Mutants([one], 3)[k] for k in range(20)]
    assert [mutants.Mutants([one], 3)[k] for k in reversed(range(20))] == sent[::-1]
    assert len({(call.path, call.body) for call in sent}) > 10


@pytest.fixture(scope="module")
def two(folder: Path) -> Predictor:
    return Predictor.open(folder / "two")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows)
@example([{"price": 1e308 * 10, "tags": []}])
@example([{"price": 10**400, "tags": None}])
@example([{"price": 1, "tags": "\ud800"}])
@example([{"price": {}, "tags": {"a": []}}, {"tags": [{"b": 1}]}])
def test_whatever_rows_hold_is_a_batch_or_refused(two: Predictor, asked):
    with suppress(RefusalError):
        assert len(encode_rows(asked, two)) == len(asked)


def test_nesting_and_keys_end(two: Predictor):
    """Polars would take minutes for two of these, and years for the largest body."""
    deep: list = []
    for _ in range(40):
        deep = [deep]
    for value in (deep, [{str(key): 1} for key in range(20_000)], {str(k): 1 for k in range(300)}):
        with pytest.raises(RefusalError, match=f"at most {MOST_DEPTH} lists .* {MOST_KEYS} diff"):
            encode_rows([{"price": 1, "tags": value}], two)
    assert len(encode_rows([{"price": 1, "tags": ["a", "b"] * 1000}], two)) == 1
