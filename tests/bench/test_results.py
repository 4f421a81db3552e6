"""Rows of results: what each says of where it comes from, and reading them again."""

import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.bench import results
from dlrm.bench.results import PROVENANCE, SCHEMA, append, command, load, row, save
from dlrm.errors import ConfigError, InputError
from dlrm.planning.facts import facts

WORDS = st.from_regex(r"[a-z0-9.,=:_-]{1,8}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def test_a_row_says_all_that_it_takes_to_judge_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/dlrm", "bench", "train", "--batch", "8"])
    made = row("train", {"batch_size": 8, "ours_ms": 1.5, "steal_share": 0.01}, seed=3)
    assert list(made)[:4] == ["schema", "suite", "batch_size", "ours_ms"]
    assert (made["schema"], made["suite"]) == (SCHEMA, "train")
    assert (made["seed"], made["steal_share"]) == (3, 0.01)
    assert made["machine"] == facts().fingerprint
    assert made["command"] == "dlrm bench train --batch 8"
    assert made["taken"].endswith("+00:00")
    own = {"batch_size", "ours_ms", "others_share"}
    assert set(made) - own == set(PROVENANCE) - own
    assert all(made[name] is not None for name in made)


def test_a_measurement_may_know_better_than_the_process_that_writes_it() -> None:
    known = {"threads": 77, "load": 1.5, "steal_share": 0.2, "others_share": 0.1, "seed": 9}
    made = row("ops", known, seed=0)
    assert {name: made[name] for name in known} == known
    assert row("ops", {})["steal_share"] is None


@pytest.mark.parametrize("name", ["machine", "commit", "suite", "torch"])
def test_values_may_not_hide_where_a_row_comes_from(name: str) -> None:
    with pytest.raises(ConfigError, match=f'a value of a train row is called "{name}"'):
        row("train", {name: "mine", "ours_ms": 1.0})


@given(st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=4), WORDS)
@settings(deadline=None, max_examples=30)
def test_a_command_tells_no_folder(paths: list[list[str]], flag: str) -> None:
    folders = ["secret", "home"]
    words = ["/".join(["", *folders, *path]) for path in paths]
    said = command(["/usr/local/bin/dlrm", *words, f"--{flag}=/secret/home/x", "../secret/y"])
    assert "/" not in said
    assert said.startswith("dlrm ")
    if not any("secret" in part or "home" in part for path in paths for part in path):
        assert "secret" not in said
        assert "home" not in said


def test_a_command_keeps_the_names_of_files_and_the_program() -> None:
    argv = ["benchmarks/parity.py", "--out=/home/me/rows.jsonl", "criteo:/data/c.txt", "a b/c"]
    assert command(argv) == "parity.py --out=rows.jsonl criteo:c.txt 'a c'"
    assert command(["/lib/dlrm/__main__.py", "bench", "ops"]) == "dlrm bench ops"
    assert command([r"C:\me\dlrm.exe", "--batch", "128,2048"]) == "dlrm.exe --batch 128,2048"


def test_rows_are_kept_by_hardware_and_day(workdir: Path) -> None:
    path = append("train", {"batch_size": 8})
    assert append("train", {"batch_size": 9}) == path
    assert path.relative_to(results.RESULTS).parts[0].endswith("-cores")
    assert path.name.endswith("-train.jsonl")
    assert [each["batch_size"] for each in load(workdir / path)] == [8, 9]
    mine = workdir / "there" / "mine.jsonl"
    assert append("train", {}, mine) == mine
    assert mine.is_file()


@given(st.lists(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_what_is_saved_is_loaded_again(tmp_path_factory, values: list[dict]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [{**each, "suite": "train"} for each in values]
    save(rows[:1], path)
    if rows[1:]:
        save(rows[1:], path)
    assert load(path) == [_finite(each) for each in rows]
    assert path.read_text().count("\n") == len(rows)


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def test_figures_that_are_no_numbers_become_null(tmp_path: Path) -> None:
    path = save([{"suite": "train", "ms": math.nan, "all": [math.inf, 1.0]}], tmp_path / "r.jsonl")
    assert json.loads(path.read_text()) == {"suite": "train", "ms": None, "all": [None, 1.0]}
    # Others may have written what is no JSON.
    path.write_text('{"suite": "train", "ms": NaN, "p95_ms": -Infinity}\n')
    assert load(path) == [{"suite": "train", "ms": None, "p95_ms": None}]


def test_a_crash_in_the_middle_keeps_the_rows_before(tmp_path: Path) -> None:
    broken = {"suite": "train", "ms": object()}
    with pytest.raises(TypeError):
        save([{"suite": "train", "ms": 1.0}, broken], tmp_path / "rows.jsonl")
    assert load(tmp_path / "rows.jsonl") == [{"suite": "train", "ms": 1.0}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows of results"),
        ("\n\n", "has no rows of results"),
        ('{"suite": "train"}\n\n{"suite": "tr', 'line 3: expected a row of results as JSON, found '
         '{"suite": "tr (Unterminated'),
        ("# Results\n", "line 1: expected a row of results as JSON, found # Results ("),
        ("[1, 2]\n", 'line 1: expected an object that says its "suite", found [1, 2]'),
        ('{"suite": 3}', 'line 1: expected an object that says its "suite", found {"suite": 3}'),
        ('{"auc": 0.8, "long": "' + 50 * "x" + '"}', "found " + '{"auc": 0.8, "long": "xxxxxxxxxx'),
        (60 * "x", f"found {40 * 'x'}... ("),
    ],
)  # fmt: skip
def test_what_is_no_row_is_said_by_file_and_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_folder_and_bytes_are_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, expected a file of results"):
        load(tmp_path)
    path = tmp_path / "rows.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    with pytest.raises(InputError, match="line 1: expected a row"):
        load(path)
