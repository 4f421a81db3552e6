import json
import sys
from pathlib import Path

import pytest

from dlrm.bench.results import load, save
from dlrm.cli import main
from dlrm.commands.bench.report import bench_report as report
from dlrm.commands.bench.report import newest
from dlrm.errors import ConfigError, InputError, MissingExtraError
from dlrm.terminal import out
from reporting import benchmarks


@pytest.fixture
def files(workdir: Path) -> tuple[Path, Path]:
    """The machine and its steps, and single operators."""
    steps = [benchmarks.machine(), benchmarks.step("train", 2048)]
    return (
        save(steps, Path("steps.jsonl")),
        save([benchmarks.case("lookup", 128)], Path("ops.jsonl")),
    )


def test_files_of_several_suites_become_one_page(files, capsys):
    assert main(["bench", "report", *map(str, files), "--html", "x.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"] == 3
    assert found["older"] == 0
    assert found["html"] == "x.html"
    assert Path("x.html").stat().st_size == found["html_bytes"]
    assert "bound by compute" in found["headline"]
    text = Path("x.html").read_text(encoding="utf-8")
    assert "Roofline: train" in text
    assert "Roofline: ops" in text


def test_a_terminal_shows_the_path_and_the_headline(files):
    with out.capture() as shown:
        out.print(report(files))
    said = " ".join(shown.get().split())
    assert said.startswith("bench.html")
    assert "top MLP takes 47%" in said
    assert "left out" not in said


def test_the_newest_row_of_a_setting_counts(workdir):
    old = benchmarks.step("train", 2048, verdict="old")
    new = benchmarks.step("train", 2048, verdict="new", taken="2026-11-21T00:00:00+00:00")
    other = benchmarks.step("train", 128)
    # Whatever the order.
    assert newest([old, new, other]) == [new, other]
    assert newest([new, other, old]) == [new, other]
    elsewhere = old | {"machine": "ffffffffffff"}
    assert newest([old, elsewhere]) == [old, elsewhere]
    file = save([new, old], Path("rows.jsonl"))
    result = report((file,))
    assert result.older == 1
    assert "new" in result.headline
    assert load(file)[1]["verdict"] == "old"


def test_rows_of_two_machines_are_drawn_only_when_asked(workdir):
    here = save([benchmarks.machine(), benchmarks.step("train", 128)], Path("here.jsonl"))
    other = {"machine": "ffffffffffff", "cpu": "Another"}
    there = save([benchmarks.step("train", 128, arch="else") | other], Path("there.jsonl"))
    with pytest.raises(ConfigError) as raised:
        report((here, there))
    for said in ("here.jsonl", "there.jsonl", "ffffffffffff", "--across-machines"):
        assert said in str(raised.value)
    assert not Path("bench.html").exists()
    result = report((here, there), across_machines=True)
    assert len(result.machines) == 2
    assert "Roofline: train on ffffffffffff" in result.html.read_text(encoding="utf-8")


def test_what_is_no_file_of_rows_is_an_error(workdir, capsys):
    Path("bad.jsonl").write_text('{"suite": "train"}\nnonsense\n')
    with pytest.raises(InputError, match=r"bad\.jsonl, line 2"):
        report((Path("bad.jsonl"),))
    assert main(["bench", "report", "nowhere.jsonl"]) == 1
    assert "nowhere.jsonl" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="expected one or more"):
        report(())


def test_rows_of_before_schemas_are_listed_not_drawn(workdir):
    file = Path("old.jsonl")
    file.write_text('{"suite": "train", "ms": 3}\n')
    result = report((file,))
    assert result.headline == "Nothing of these rows can be drawn."
    assert "row 1 (train): schema None" in result.html.read_text(encoding="utf-8")


def test_without_matplotlib_the_extra_is_named(files, monkeypatch):
    for name in [each for each in sys.modules if each.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"opendlrm\[report\]"):
        report(files)
    assert not Path("bench.html").exists()
