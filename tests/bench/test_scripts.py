"""The scripts in benchmarks/: those that are quick run, of the others the parts that decide."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import machines, tiny
from bench.scripts import SCRIPTS, script
from dlrm.bench import calibrate
from dlrm.bench.arch import ARCHS
from dlrm.bench.timer import Timing
from dlrm.commands.flags import parse_with_config
from dlrm.commands.run_config import recipe_config, with_model
from dlrm.commands.train import train
from dlrm.errors import ConfigError, DlrmError


@pytest.mark.parametrize(
    "name", ["generate", "loading", "numerics", "predictor", "tables", "traces"]
)
def test_quick_runs_leave_rows_where_asked(name: str, workdir: Path) -> None:
    script(name).main(["--quick", "--out", "rows.jsonl"])
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert {row["suite"] for row in rows} == {name}
    assert [path.name for path in workdir.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "name",
    [
        "prepare",
        "before_after",
        "training",
        "end_to_end",
        "neighbours",
        "hardware",
        "roofline",
        "peers",
        "parity",
        "parallel",
        "numerics",
        "operators",
        "accuracy",
        "tables",
        "plan",
        "prediction",
        "figure6",
        "run",
        "jax_step",
        "runtimes",
        "fuzz",
        "reliability",
        "serving",
    ],
)
def test_every_script_has_a_quick_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        script(name).main(["--help"])
    assert "--quick" in capsys.readouterr().out


def test_a_version_beside_itself_does_the_same(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLRM_BEFORE", raising=False)
    before_after = script("before_after")
    assert before_after.main(["--quick", "--out", "rows.jsonl"]) == 0
    assert not list(workdir.iterdir())
    words = [str(SCRIPTS.parent), "--quick", "--only", "step", "--out", "rows.jsonl"]
    assert before_after.main(words) == 0
    (row,) = (json.loads(line) for line in Path("rows.jsonl").read_text().splitlines())
    assert (row["suite"], row["what"], row["max_abs_diff"]) == ("before-after", "step 8", 0.0)
    low, high = row["speedup_interval"]
    assert 0 < low <= row["speedup"] <= high
    for name in ("before", "after"):
        low, high = row[f"{name}_interval"]
        assert 0 < low <= row[f"{name}_ms"] <= high
    with pytest.raises(DlrmError, match="has no package dlrm; expected a work tree"):
        before_after.main([str(workdir), "--quick", "--only", "step"])


def test_overlapping_intervals_are_no_verdict() -> None:
    compared = script("before_after").compared
    before, slower = Timing("before", [1.0, 1.1, 0.9]), Timing("after", [1.3, 1.5, 1.2])
    assert compared([before, slower])["verdict"].startswith("after is slower")
    alike = Timing("after", [1.1, 1.0, 0.9])
    assert compared([before, alike])["verdict"].startswith("no verdict")


def test_every_suite_is_a_script_and_every_script_is_a_suite() -> None:
    run = script("run")
    scripts = {words[0] for _, words in run.SUITES.values()}
    parts = {"run.py", "raw_to_model.py", "original_program.py", "workers.py", "exchange.py"}
    parts |= {"mutants.py", "small_runs.py", "callers.py", "served_process.py", "serving_peers.py"}
    assert scripts == {path.name for path in SCRIPTS.glob("*.py")} - parts


def test_every_entry_of_the_accuracy_table_is_a_command_that_was_measured() -> None:
    entries = script("accuracy").entries()
    assert len({entry.name for entry in entries}) == len(entries)
    measured: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((SCRIPTS / "results").rglob("*-accuracy.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            measured.setdefault(row["entry"], []).append(row)
    for entry in entries:
        recipe, *flags = entry.words
        config = with_model(recipe_config(recipe, flags), flags)
        # A flag that there is not ends the program.
        parse_with_config(train, config, flags, "dlrm train")
        assert entry.tolerance > 0
        rows = measured.pop(entry.name, [])
        if entry.name == "clicks, one DLRM":
            # Its figure is that of one seed, which is no row.
            assert not rows
            continue
        newest = rows[-1]
        # Its recipe may have moved to another module since.
        words, was = (
            [w.rpartition(":")[2] for w in each] for each in (entry.words, newest["words"])
        )
        assert (was, newest["metric"], newest["split"], newest["target"]) == (
            words,
            entry.metric,
            entry.split,
            entry.target,
        )
        # What is said to be reached was measured, and still was when it was last looked at.
        assert any(abs(row["value"] - entry.reached) < 1e-5 for row in rows), entry.name
        assert entry.holds(newest["value"], entry.reached, entry.tolerance), entry.name
        assert newest["met"] == (
            None if entry.target is None else entry.holds(newest["value"], entry.target)
        )
    assert not measured


def test_accuracy_that_was_lost_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workdir: Path
) -> None:
    accuracy = script("accuracy")
    once = {"words": ["demo"], "data": "clicks:2000", "metric": "auc", "split": "test"}
    rest = {"target": 0.5, "tolerance": 0.01, "minutes": 0.1}
    lines = [
        {"name": "kept", "reached": 0.1, **once, **rest},
        {"name": "lost", "reached": 0.99, **once, **rest},
        {"name": "elsewhere", "reached": 0.1, **once, **rest, "data": "nowhere.csv"},
    ]
    Path("entries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(accuracy, "ENTRIES", Path("entries.jsonl"))
    assert accuracy.main(["--seeds", "2", "--out", "rows.jsonl"]) == 1
    said = capsys.readouterr().out
    assert "WORSE THAN BEFORE: lost" in said
    assert "Without elsewhere" in said
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [(row["entry"], row["holds"], len(row["values"])) for row in rows] == [
        ("kept", True, 2),
        ("lost", False, 2),
    ]
    assert rows[0]["value"] == pytest.approx(sum(rows[0]["values"]) / 2)
    assert sorted(path.name for path in workdir.iterdir()) == ["entries.jsonl", "rows.jsonl"]


def test_what_is_missing_and_what_failed_is_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = script("run")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "SUITES", {"good": (1, ("good.py",)), "bad": (2, ("bad.py", "-x"))})
    monkeypatch.setattr(run, "PACKAGES", {"Theirs": "nobody_has_this"})
    monkeypatch.delenv("DLRM_ORIGINAL", raising=False)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/good.py").write_text("import sys; print('ran', sys.argv[1:])")
    (tmp_path / "benchmarks/bad.py").write_text("import sys; sys.exit(sys.argv[1])")
    assert run.main([]) == 1
    said = capfd.readouterr().out
    assert "Without the original (DLRM_ORIGINAL names no clone)\nWithout Theirs\n" in said
    assert "2 suites, some 3 minutes" in said
    assert "ran []" in said
    assert said.endswith("FAILED: bad\n")
    assert run.main(["--only", "good", "--quick"]) == 0
    assert "ran ['--quick', '--out'" in capfd.readouterr().out
    with pytest.raises(ConfigError, match='unknown suite "godo"'):
        run.main(["--only", "godo"])


def test_peers_get_as_many_rows_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = script("peers")
    arch = ARCHS["criteo-kaggle"]
    table_bytes = arch.rows_total * 64
    # Its tables and gradients, and ours; Adam keeps two more of each size on either side.
    rest = peers.REST_BYTES
    assert 3 * table_bytes < peers.need_bytes(arch, "sgd") - rest < 4 * table_bytes
    assert 7 * table_bytes < peers.need_bytes(arch, "adam") - rest < 8 * table_bytes
    for optimizer in ("sgd", "adam"):
        scales = [peers.largest(optimizer, gib * 2**30) for gib in (3, 6, 12, 20, 40)]
        assert scales == sorted(scales)
        assert scales[-1] == 1.0
        for gib, scale in zip((3, 6, 12, 20, 40), scales, strict=True):
            assert peers.need_bytes(arch.scaled(scale), optimizer) <= gib * 2**30
    with pytest.raises(ConfigError, match="of the rows fit into 1"):
        peers.largest("sgd", 2**30)
    assert sys.modules.get("deepctr_torch") is None


def test_lines_of_the_whole_run_must_rise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="original-lines 50 and lines 100"):
        script("end_to_end").main(
            ["--lines", "100", "--original-lines", "50", "--trial-lines", "50"]
        )


def test_the_table_of_hardware_keeps_the_newest_figures_and_marks_what_is_reached(
    tmp_path: Path,
) -> None:
    hardware = script("hardware")
    assert hardware.kind_of(("avx2", "avx512_bf16")) == "AVX-512 with bf16"
    assert hardware.kind_of(("avx512_bf16", "amx_bf16")) == "AMX"
    assert hardware.kind_of(("avx2",)) == "AVX2"
    known = {"suite": "hardware", "cpu": "one", "cores": 2, "machine": "a", "kind": "AMX"}
    other = {**known, "cpu": "two", "machine": "b", "kind": "AVX2", "avx2_128_speedup": 0.9}
    (folder := tmp_path / "one").mkdir()
    rows = [
        {**known, "one_row_us": 400.0, "bf16_128_share": 0.3},
        {**known, "one_row_us": 200.4, "bf16_128_share": None},
        other,
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "2026-01-01-hardware.jsonl").write_text(text)
    lines = hardware.markdown(hardware.kept(tmp_path)).splitlines()
    assert lines[0].endswith("| one, 2 cores (AMX) | two, 2 cores (AVX2) |")
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines[2:]}
    assert cells["| one row through Predictor.scores"] == ["**200 us** / 300 us", "– |"]
    assert cells["| step bf16, 128, share of the limit"] == ["30% / 55%", "– |"]
    assert cells["| AVX2 alone, fp32, 128, times plain torch"] == ["– / 1", "0.9 / 1 |"]


def test_rooflines_are_drawn_of_all_hardware_and_name_what_lies_below_them(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.measured(monkeypatch, workdir / "machines")
    monkeypatch.setattr(calibrate, "calibrate", lambda *_: machines.COSTS)
    roofline = script("roofline")
    kept = workdir / "benchmarks/results/here/2026-12-01-roofline.jsonl"
    roofline.main(["--quick", "--name", "this one", "--out", str(kept)])
    (row,) = (json.loads(line) for line in kept.read_text().splitlines())
    assert (row["suite"], row["name"]) == ("roofline", "this one")
    names = [operator["name"] for operator in row["operators"]]
    assert sorted(names) == [
        "dense update", "interaction fp32", "lookup", "lookup of bags of 2", "top MLP fp32",
        "update", "update of bags of 2",
    ]  # fmt: skip
    for operator in row["operators"]:
        moved = operator["intensity"] * operator["gb_per_s"]
        assert operator["gflops_per_s"] == pytest.approx(moved)
    # One row without arithmetic, which has no place in the drawing, and so no number.
    assert f"| 6 | {names[-1]} | " in capsys.readouterr().out
    assert not (workdir / "docs").exists()
    picture = workdir / "docs/images/roofline.svg"
    picture.parent.mkdir(parents=True)
    roofline.main(["--draw"])
    drawn = ElementTree.fromstring(picture.read_text())
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"this one", *(machine["name"] for machine in roofline.BEFORE)} <= texts
    assert "prefers-color-scheme: dark" in picture.read_text()
    assert len(kept.read_text().splitlines()) == 1
