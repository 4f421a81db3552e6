import json
from pathlib import Path

import pytest

from dlrm.cli import main
from dlrm.commands.describe import describe
from dlrm.commands.prepare import prepare
from dlrm.errors import ConfigError, DatasetError


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows = []
    for row in range(10):
        first = ["ff00aa01", "", "7"][row % 3]
        cells = [str(int(row < 3)), *["5"] * 12, "" if row else "1", first, *["1"] * 25]
        rows.append("\t".join(cells) + "\n")
    Path("raw").write_text("".join(rows))
    prepare("criteo", [Path("raw")], out=Path("out"), split="chronological", fractions=(8, 0, 1))
    return Path("out")


def test_numbers_are_those_of_the_log(dataset):
    shown = describe(dataset, head=2).to_dict()
    assert (shown["rows"], shown["unused_rows"], shown["bad_rows"]) == (10, 1, 0)
    assert shown["splits"][0] == {
        "name": "train",
        "rows": 8,
        "positives": 3,
        "positive_rate": 0.375,
    }
    assert shown["splits"][1]["positive_rate"] is None
    features = {each["name"]: each for each in shown["features"]}
    assert features["I13"]["missing_rate"] == 0.9
    assert features["I13"]["values"] is None
    first = features["C1"]
    assert (first["values"], first["missing_rate"], first["rare"]) == (3, 0.3, 0)
    assert list(first["head"]) == [
        {"id": 0, "value": "ff00aa01", "count": 4, "share": 0.4},
        {"id": 1, "value": None, "count": 3, "share": 0.3},
    ]
    assert json.loads(json.dumps(shown)) is not None


def test_the_terminal_shows_them(dataset, capsys):
    assert main(["data", "describe", "out", "--verify"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("source criteo, 10 rows", "1 in no split", "every hash is right", "0.3750"):
        assert said in shown
    for said in ("ff00aa01", "(missing)", "00000007", "90.00%", "C26"):
        assert said in shown


def test_head_and_verify(dataset):
    assert all(not each["head"] for each in describe(dataset, head=0).features)
    with pytest.raises(ConfigError, match="head is -1"):
        describe(dataset, head=-1)
    assert not describe(dataset).verified
    path = dataset / "train" / "labels.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(DatasetError, match=r"labels\.bin was altered"):
        describe(dataset, verify=True)


def test_residues_are_shown_as_numbers(dataset):
    prepare("criteo", [Path("raw")], out=Path("few"), max_rows_per_table=100)
    first = next(each for each in describe(Path("few")).features if each["name"] == "C1")
    assert [value["value"] for value in first["head"]] == [str(0xFF00AA01 % 100), "0", "7"]


def test_what_is_no_dataset(dataset, capsys):
    assert main(["data", "describe", "raw"]) == 1
    assert "raw is not a prepared dataset" in capsys.readouterr().err
    assert main(["data", "describe", "nowhere", "--json"]) == 1
    assert "does not exist" in capsys.readouterr().err
