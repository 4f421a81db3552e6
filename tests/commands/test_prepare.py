import json
from pathlib import Path

import pytest

from dlrm.cli import main
from dlrm.commands.prepare import prepare
from dlrm.errors import ConfigError

ROW = "1\t" + "\t".join(["5", "", "-1"] + ["0"] * 10) + "\t" + "\t".join(["ff00aa01", ""] * 13)


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("train.txt")
    path.write_text("".join(f"{row % 2}{ROW[1:]}\n" for row in range(70)))
    return path


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_prepares_then_finds_again(raw, capsys):
    words = ["data", "prepare", "criteo", "train.txt", "--out", "out", "--verify", "--json"]
    assert main(words) == 0
    made = last_line(capsys)
    assert {key: made[key] for key in ("out", "rows", "train_rows", "reused", "bad_rows")} == {
        "out": "out",
        "rows": 70,
        "train_rows": 60,
        "reused": False,
        "bad_rows": 0,
    }
    assert made["positive_rate"] == 0.5
    assert made["values"] == 26
    assert made["size_bytes"] == sum(
        path.stat().st_size
        for path in Path("out").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    )
    assert made["rows_per_s"] > 0
    assert main(words) == 0
    assert last_line(capsys)["reused"]


def test_flags_reach_the_settings(raw, capsys):
    words = "data prepare criteo train.txt --out out --split random --seed 5 --ids frequency"
    words += " --fractions .5 .25 .25 --min-count 2 --max-rows-per-table 9"
    assert main([*words.split()]) == 0
    options = json.loads(Path("out/manifest.json").read_text())["options"]
    assert {name: value for name, value in options.items() if value is not None} == {
        "split": "random",
        "fractions": [0.5, 0.25, 0.25],
        "seed": 5,
        "ids": "frequency",
        "min_count": 2,
        "max_rows_per_table": 9,
    }
    shown = capsys.readouterr().out
    assert "train" in shown
    assert "35" in shown
    assert "dlrm data describe out" in shown


def test_bad_input_is_one_line_and_leaves_nothing(raw, capsys):
    raw.write_text(raw.read_text() + "yes" + ROW[1:] + "\n")
    assert main(["data", "prepare", "criteo", "train.txt", "--out", "out"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip() == (
        'dlrm: error: train.txt, line 71, column label: label is "yes", expected 0 or 1'
    )
    assert [path.name for path in Path.cwd().iterdir()] == ["train.txt"]
    words = ["data", "prepare", "criteo", "train.txt", "--out", "out", "--bad-rows", "skip"]
    assert main([*words]) == 0
    shown = capsys.readouterr().out
    assert "1 bad rows left out (label 1)" in shown
    assert main([*words, "--json"]) == 0
    made = last_line(capsys)
    assert made["bad_rows"] == 1
    assert made["bad_row_reasons"] == {"label": 1}
    assert "line 71" in made["bad_row_examples"][0]


def test_missing_files_and_unknown_sources(raw, capsys):
    assert main(["data", "prepare", "criteo", "nowhere", "--out", "out"]) == 1
    assert "nowhere: there is no such file" in capsys.readouterr().err
    assert main(["data", "prepare", "criteo", "--out", "out"]) == 2
    assert "no file is named" in capsys.readouterr().err
    assert main(["data", "prepare", "avazu", "train.txt", "--out", "out"]) == 1
    said = capsys.readouterr().err
    assert 'unknown source "avazu"; choose one of: criteo, table, module:name' in said
    assert not Path("out").exists()


def test_fractions_that_would_be_ignored_are_refused(raw):
    with pytest.raises(ConfigError, match="split kaggle has its own fractions"):
        prepare("criteo", [raw], out=Path("out"), fractions=(0.5, 0.25, 0.25))
    made = prepare("criteo", [raw], out=Path("out"), split="chronological")
    assert made.splits == {"train": 56, "validation": 7, "test": 7}
