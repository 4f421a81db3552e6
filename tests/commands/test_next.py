"""What a training says to do next can be done."""

import html
import shlex
from pathlib import Path

import pytest

from dlrm.cli import main

QUICK = ("--epochs", "1", "--no-baseline", "--ensemble", "1", "--max-steps", "2")


def table(path: Path, rows: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{n % 7},{n % 3},{int(n % 5 > 2)}" for n in range(rows)]
    path.write_text("\n".join(["a,b,y", *lines, ""]))


@pytest.mark.parametrize(
    ("files", "data", "more"),
    [
        (["it's; day 1.csv"], "it's; day 1.csv", ()),
        (["my days/1.csv", "my days/10.csv"], "my days/*.csv", ("--bad-rows", "skip")),
        (["split/train.csv", "split/valid.csv", "split/test.csv"], "split", ()),
    ],
)
def test_the_next_command_runs(files, data, more, workdir, pages, capsys):
    for file in files:
        table(Path(file))
    words = ["train", data, "--label", "y", "--run", "run $1 'x'", *QUICK, *more]
    assert main(words) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Next: dlrm predict ")
    assert main(shlex.split(line.removeprefix("Next: dlrm "))) == 0
    assert Path("scores.parquet").is_file()
    page = html.unescape(Path("run $1 'x'", "report.html").read_text())
    assert line.removeprefix("Next: ") in page
    assert "RAW" not in page


def test_without_a_file_the_run_is_measured(workdir, capsys):
    words = ["train", "demo", "--data", "clicks:2000", "--run", "run", *QUICK]
    assert main([*words, "--model.dim", "4"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "Next: dlrm eval run"
    assert main(shlex.split(line.removeprefix("Next: dlrm "))) == 0
