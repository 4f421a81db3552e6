"""A source of one's own, in a file of its own, from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from dlrm.cli import main
from dlrm.data.features.features import Features
from dlrm.data.scoring import FileRows
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError

SOURCE = """
import json
import polars as pl

class JsonLines:
    name = "json lines"

    def __init__(self, files, *, bad_rows="error"):
        self.files = files

    def schema(self):
        return None

    def fingerprint(self):
        return {"source": self.name, "texts": [file.read_text() for file in self.files]}

    def rows(self):
        return 100

    def read(self):
        for file in self.files:
            lines = file.read_text().splitlines()
            yield pl.DataFrame([json.loads(line) for line in lines])
"""


@pytest.fixture
def visits(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lines of JSON, and the source that reads them."""
    monkeypatch.syspath_prepend(workdir)
    (workdir / "json_lines.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    rows = [
        {"price": float(rng.normal()), "city": city, "seen": [city, "x"], "bought": int(bought)}
        for city, bought in zip(rng.choice(list("abc"), 60), rng.integers(0, 2, 60), strict=True)
    ]
    lines = [
        json.dumps({**row, "city": str(row["city"]), "seen": [*map(str, row["seen"])]})
        for row in rows
    ]
    for number, part in enumerate((lines[:40], lines[40:])):
        (workdir / f"{number}.jsonl").write_text("\n".join(part) + "\n")
    return workdir


def test_it_is_prepared_as_any_table(visits, capsys):
    words = "data prepare json_lines:JsonLines 0.jsonl 1.jsonl --label bought --out out"
    assert main([*words.split(), "--split", "chronological"]) == 0
    made = Dataset.open(visits / "out")
    assert made.source == "json lines"
    kinds = {each["name"]: each["kind"] for each in made.manifest["columns"]}
    assert kinds == {"price": "number", "city": "category", "seen": "list"}
    assert [len(made.split(name)) for name in made.splits] == [48, 6, 6]
    assert main([*words.split(), "--split", "chronological", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reused"]
    with pytest.raises(
        ConfigError, match=r"rows of json lines, whose files only that source reads"
    ):
        FileRows(Features.load(made.path), [visits / "0.jsonl"])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere:Source", "source nowhere:Source: No module named 'nowhere'"),
        ("json_lines:Nothing", "has no attribute 'Nothing'"),
        ("jsonl", 'unknown source "jsonl"; choose one of: criteo, table, module:name'),
    ],
)
def test_what_is_no_source_is_said(visits, capsys, source, said):
    assert main(["data", "prepare", source, "0.jsonl", "--out", "out", "--label", "bought"]) == 1
    assert said in capsys.readouterr().err
