"""`dlrm bench diff`: its sentence, its table, its exit status, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from dlrm import cli
from dlrm.bench.results import append, load

Row = dict[str, Any]
OF = {
    "schema": 1, "suite": "train", "arch": "criteo-kaggle", "threads": 2, "cpu": "AMD EPYC",
    "cores": 2, "machine": "0123456789ab", "commit": "abc1234",
}  # fmt: skip
SLOW = {"lookup": 5.0, "update": 4.0, "loss": 1.0}


def step(batch_size: int, more: float = 0.0, **values: Any) -> Row:
    """Return a row of a step whose update takes so many milliseconds more."""
    operators = {**SLOW, "update": SLOW["update"] + more}
    ms = sum(operators.values())
    return {
        **OF,
        "batch_size": batch_size,
        "step_ms": ms,
        "step_low": ms * 0.98,
        "step_high": ms * 1.02,
        "operators": [{"name": name, "ms": each} for name, each in operators.items()],
        **values,
    }


@pytest.fixture
def files(workdir: Path):
    def files(before: list[Row], after: list[Row]) -> list[str]:
        for name, rows in (("before", before), ("after", after)):
            Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return ["before.jsonl", "after.jsonl"]

    return files


def words(text: str) -> str:
    return " ".join(text.split())


def test_what_got_slower_is_said_with_the_operator_that_did_it(files, capsys) -> None:
    paths = files([step(128), step(2048)], [step(128), step(2048, more=2.0, commit="def5678")])
    assert cli.main(["bench", "diff", *paths]) == 1
    shown = words(capsys.readouterr().out)
    assert "commit: abc1234 before, abc1234, def5678 after" in shown
    assert (
        "A step (batch 2048) takes 1.20 (1.15 to 1.25) times as long; "
        "most of it in update: 4 ms to 6 ms."
    ) in shown
    assert "Figures: 2, of them 1 slower, 0 faster, 1 no verdict." in shown
    assert cli.main(["bench", "diff", *paths, "--tolerance", "0.5"]) == 0
    shown = words(capsys.readouterr().out)
    assert "Slower by no more than the tolerance of 50%: 1." in shown
    # The other way round nothing got slower.
    assert cli.main(["bench", "diff", *reversed(paths)]) == 0
    assert "0 slower, 1 faster" in words(capsys.readouterr().out)


def test_json_holds_every_comparison(files, capsys) -> None:
    paths = files([step(128), step(256)], [step(128, more=2.0), step(512)])
    assert cli.main(["bench", "diff", *paths, "--json"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["slower"], found["faster"], found["no_verdict"]) == (1, 0, 0)
    (pair,) = found["pairs"]
    assert pair["settings"]["batch_size"] == 128
    (figure,) = pair["figures"]
    assert figure["figure"] == "step_ms"
    assert figure["ratio"] == pytest.approx(1.2)
    assert figure["ratio_interval"] == [pytest.approx(1.153, abs=1e-3), pytest.approx(1.249, 1e-3)]
    assert figure["verdict"] == "slower"
    assert [each["figure"] for each in pair["operators"]] == ["lookup", "update", "loss"]
    assert [each["batch_size"] for each in found["only_before"]] == [256]
    assert [each["batch_size"] for each in found["only_after"]] == [512]
    assert found["verdict"].startswith("A step (batch 128) takes 1.20")


def test_rows_of_one_file_alone_are_named(files, capsys) -> None:
    many = [step(2**n) for n in range(1, 9)]
    assert cli.main(["bench", "diff", *files([*many, step(3)], [step(3), step(5)])]) == 0
    shown = words(capsys.readouterr().out)
    assert "Only in before.jsonl: batch 2 batch 4 batch 8 batch 16 batch 32 and 3 more" in shown
    assert "Only in after.jsonl: batch 5" in shown


def test_long_tables_are_cut_to_what_has_a_verdict(files, capsys) -> None:
    before, after = ([step(n) for n in range(1, 41)] for _ in range(2))
    assert cli.main(["bench", "diff", *files(before, after)]) == 0
    shown = words(capsys.readouterr().out)
    assert "none of the figures has a verdict" in shown
    after[6] = step(7, more=-2.0)
    assert cli.main(["bench", "diff", *files(before, after)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("batch ") == 1
    assert "batch 7" in shown


def test_a_peer_that_got_slower_points_at_the_machine(files, capsys) -> None:
    def row(ms: float) -> Row:
        return {**OF, "original_ms": ms, "original_interval": [ms * 0.9, ms * 1.1]}

    assert cli.main(["bench", "diff", *files([row(1.0)], [row(2.0)])]) == 0
    assert "Not of this project, and slower too: original" in words(capsys.readouterr().out)


def test_figures_of_every_kind_are_shown_in_their_units(files, capsys) -> None:
    def row(factor: float) -> Row:
        found = {**OF, "suite": "any"}
        for name, value in (("epoch_s", 90.0), ("tiny_s", 3e-9), ("lines_per_s", 2e6)):
            base = name.removesuffix("_s")
            found |= {name: value * factor, f"{base}_interval": [value * factor * 0.99, 1e9]}
        return found | {"lines_per_s_low": 1.0, "lines_per_s_high": 2.1e6, "memory_s": factor}

    paths = files([row(1.0)], [row(1.5)])
    assert cli.main(["bench", "diff", *paths]) == 0
    shown = words(capsys.readouterr().out)
    for said in ("90 s", "135 s", "3 ns", "4.5 ns", "2 M", "3 M", "lines/s", "epoch", "memory"):
        assert said in shown
    assert "so that nothing can be said: 1; repeats in the same file give one." in shown


def test_a_rate_that_fell_and_a_change_of_accuracy(files, capsys) -> None:
    def row(rate: float, change: float) -> Row:
        return {
            **OF, "suite": "numerics", "variant": "int4", "rows_per_s": rate,
            "rows_per_s_low": rate * 0.99, "rows_per_s_high": rate * 1.01, "auc_change": change,
            "auc_change_low": change - 1e-5, "auc_change_high": change + 1e-5,
        }  # fmt: skip

    assert cli.main(["bench", "diff", *files([row(1e5, -1e-4)], [row(5e4, -1e-3)])]) == 1
    shown = words(capsys.readouterr().out)
    assert "Rows/s (numerics) is 0.50 (0.49 to 0.51) times what it was." in shown
    assert "1 slower, 0 faster, 1 worse, 0 no verdict" in shown
    assert "-0.00090" in shown


def test_what_a_machine_could_do_is_compared_too(files, capsys) -> None:
    def row(factor: float) -> Row:
        point = {"row_bytes": 64, "table_bytes": 1 << 30, "row_s": 1e-8 / factor}
        ceilings = {
            "threads": 2, "copy": {"1": 2e10 * factor, "2": 4e10}, "call_s": 1e-6,
            "flops": {"bf16": {"2": 9e11}}, "gather": [point],
            "spread": {"copy 1": 0.01, "gather 64 1073741824 2": 0.01, "call": 0.01},
        }  # fmt: skip
        return {**OF, "suite": "machine", "ceilings": ceilings, "costs": None}

    assert cli.main(["bench", "diff", *files([row(1.0)], [row(0.5)])]) == 1
    shown = words(capsys.readouterr().out)
    assert "Copy, 1 thread (machine) is 0.50 (0.49 to 0.51) times what it was." in shown
    assert "64 B rows of 1.1 GB, 2 threads (machine) takes 2.00 (1.96 to 2.04) times" in shown
    for said in ("20 G", "10 G", "10 ns", "20 ns", "call", "bf16, 2"):
        assert said in shown


def test_more_than_a_few_sentences_are_counted(files, capsys) -> None:
    sizes = range(1, 10)
    paths = files([step(n) for n in sizes], [step(n, more=n) for n in sizes])
    assert cli.main(["bench", "diff", *paths, "--json"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["verdict"].startswith("A step (batch 9) takes 1.90")
    assert "Slower too: 4 more." in found["verdict"]


def test_what_fails_now_fails(files, capsys) -> None:
    good = {**OF, "suite": "ops", "operator": "lookup", "ms": 1.0, "error": None}
    paths = files([good], [{**good, "ms": None, "error": "out of memory"}])
    assert cli.main(["bench", "diff", *paths]) == 1
    assert "Fails now (ops): out of memory." in words(capsys.readouterr().out)


def test_machines_are_crossed_only_when_asked_for(files, capsys) -> None:
    paths = files([step(8)], [step(8, machine="ba9876543210")])
    assert cli.main(["bench", "diff", *paths]) == 1
    said = capsys.readouterr().err
    assert "(0123456789ab), after.jsonl on AMD EPYC with 2 cores (ba9876543210)" in said
    assert cli.main(["bench", "diff", *paths, "--across-machines"]) == 0
    assert capsys.readouterr().out.startswith("Across machines: ")


def test_schemas_are_crossed_only_when_asked_for(files, capsys) -> None:
    paths = files([{**step(8), "schema": 7}], [step(8)])
    assert cli.main(["bench", "diff", *paths]) == 1
    assert "has rows of schema 7, after.jsonl of schema 1" in capsys.readouterr().err
    assert cli.main(["bench", "diff", *paths, "--across-schemas"]) == 0
    assert capsys.readouterr().out.startswith("Across schemas: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense\n", "before.jsonl, line 1: expected a row of results as JSON, found nonsense"),
        ("", "before.jsonl: has no rows of results"),
        (None, "before.jsonl: No such file or directory"),
    ],
)
def test_bad_files_are_said(files, capsys, content: str | None, message: str) -> None:
    paths = files([step(8)], [step(8)])
    Path("before.jsonl").unlink()
    if content is not None:
        Path("before.jsonl").write_text(content)
    assert cli.main(["bench", "diff", *paths]) == 1
    assert message in capsys.readouterr().err


def test_nothing_in_common_and_a_tolerance_without_meaning(files, capsys) -> None:
    paths = files([step(8)], [step(9)])
    assert cli.main(["bench", "diff", *paths]) == 1
    assert "batch_size is 8 in the one, 9 in the other" in capsys.readouterr().err
    assert cli.main(["bench", "diff", *paths, "--tolerance", "-1"]) == 1
    assert "tolerance is -1.0, expected 0 or more" in capsys.readouterr().err


def test_the_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "diff", "--help"])
    shown = capsys.readouterr().out
    assert "no verdict" in shown
    assert "--tolerance" in shown


def test_rows_as_the_program_writes_them(workdir: Path, capsys) -> None:
    for ms in (1.0, 1.1):
        append("train", {"batch_size": 8, "step_ms": ms}, Path("rows.jsonl"))
    assert cli.main(["bench", "diff", "rows.jsonl", "rows.jsonl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"][0]["repeats"] == [2, 2]
    assert len(load(Path("rows.jsonl"))) == 2
