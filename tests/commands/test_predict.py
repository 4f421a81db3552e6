"""`dlrm predict`: a line for each row of any files, joined to what is kept of them."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.cli import main
from dlrm.commands.predict import predict

TRAIN = [
    *("--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--no-baseline"),
    *("--max-steps", "2", "--label", "bought"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Return a folder with a run `m[12]`, trained on lines between strokes that have titles."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    lines = [f"{k}^{rng.normal():.3f}^{'ab'[k % 3 > 0]}^{k % 2}" for k in range(200)]
    (folder / "t.csv").write_text("\n".join(["A report", "id^price^city^bought", *lines]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "t.csv", *TRAIN, "--separator", "^", "--run", "m[12]"]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(shop, monkeypatch):
    monkeypatch.chdir(shop)


def test_columns_are_kept_beside_the_scores(capsys):
    Path("a[1].csv").write_text("id,price,city,more\n007,1.5,a,x\n8,2.5,b,y\n")
    Path("a1.csv").write_text("id,price,city,more\n9,1.5,a,z\n")
    words = ["predict", "m[12]", "a[1].csv", "--keep", "id,more", "--keep", "price"]
    assert main([*words, "--out", "s.csv", "--json"]) == 0
    said = capsys.readouterr()
    assert "Ignored" not in said.err
    assert json.loads(said.out)["rows"] == 2
    scores = pl.read_csv("s.csv", infer_schema=False)
    assert scores.columns == ["id", "more", "price", "score"]
    assert scores["id"].to_list() == ["007", "8"]
    # A pattern is one where no file is called that; the first row is scored alike wherever it is.
    assert main(["predict", "m[12]", "a*.csv", "--keep", "id", "--out", "p.parquet"]) == 0
    both = pl.read_parquet("p.parquet")
    assert both["id"].to_list() == ["007", "8", "9"] or both["id"].to_list() == ["9", "007", "8"]
    assert main([*words[:3], "--out", "s.csv", "--keep", "ident"]) == 1
    assert 'unknown column to keep "ident"; choose one of: id, price' in capsys.readouterr().err


def test_standard_output_has_the_scores_alone(capsysbinary):
    Path("one.csv").write_text("price,city\n1.5,a\nx,b\n")
    words = ["predict", "m[12]", "one.csv", "--bad-rows", "skip", "--keep", "city", "--out", "-"]
    for more in ([], ["--json"]):
        assert main([*words, *more]) == 0
        said = capsysbinary.readouterr()
        scores = pl.read_csv(io.BytesIO(said.out))
        assert scores["city"].to_list() == ["a", "b"]
        assert scores["score"].is_null().to_list() == [False, True]
        assert b"line 3, column price" in said.err


def test_files_are_read_as_in_training_or_as_they_look():
    rows = [("1.5", "a"), ("-2", "b"), ("0.5", "a")]
    texts = {
        "trained.csv": "\n".join(["price^city", *map("^".join, rows)]),
        "commas.csv": "\n".join(["price,city", *map(",".join, rows)]),
        "blanks.txt": "\n".join(["price city", *map("   ".join, rows)]),
        "titled.csv": "\n".join(["Monday", "", "city;price;", *(f"{c};{p};" for p, c in rows)]),
        "lines.jsonl": "\n".join(json.dumps({"price": float(p), "city": c}) for p, c in rows),
    }
    scores = []
    for name, text in texts.items():
        Path(name).write_text(text + "\n")
        Path(f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        for file in (name, f"{name}.gz"):
            predict(Path("m[12]"), [Path(file)], out=Path("s.parquet"))
            scores.append(pl.read_parquet("s.parquet")["score"].to_list())
    assert all(other == scores[0] for other in scores)
    assert len(scores[0]) == 3


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.lists(st.sampled_from(["good", "number", "short", "long", "blank"]), min_size=1),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([".csv", ".parquet"]),
)
def test_each_row_has_its_line(files, suffix):
    lines = {"good": "1.5,a", "number": "oops,a", "short": "1", "long": "1,a,b", "blank": ""}
    for number, kinds in enumerate(files):
        text = ["price,city", *["1.5,a"] * 9, *(lines[kind] for kind in kinds)]
        Path(f"f{number}.csv").write_text("\n".join(text) + "\n")
    names = [Path(f"f{number}.csv") for number in range(len(files))]
    result = predict(
        Path("m[12]"), names, out=Path(f"each{suffix}"), keep=("price",), bad_rows="skip"
    )
    scores = (pl.read_csv if suffix == ".csv" else pl.read_parquet)(f"each{suffix}")
    expected, places = [], []
    for number, kinds in enumerate(files):
        expected += [True] * 9
        for line, kind in enumerate(kinds, start=11):
            if kind != "blank":
                expected.append(kind == "good")
            if kind not in ("good", "blank"):
                places.append((len(expected), f"f{number}.csv, line {line}"))
    assert scores["score"].is_not_null().to_list() == expected
    assert scores["score"].n_unique() <= 2
    assert result.rows == len(expected)
    assert [
        (row["row"], row["problem"].split(":")[0].split(", column")[0]) for row in result.skipped
    ] == places


def test_rows_of_a_log_have_their_lines_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "generate", "clicks", "--rows", "3000", "--out", "log.txt"]) == 0
    assert main(["train", "log.txt", "--run", "run", *TRAIN[:9]]) == 0
    lines = Path("log.txt").read_text().splitlines()[:6]
    lines[0], lines[3], lines[5] = "bad", "bad\tbad", "bad"
    Path("new.txt").write_text("\n".join(lines) + "\n")
    result = predict(
        Path("run"), [Path("new.txt")], out=Path("s.csv"), keep=("C1", "I1"), bad_rows="skip"
    )
    scores = pl.read_csv("s.csv", infer_schema=False)
    assert scores["score"].is_not_null().to_list() == [False, True, True, False, True, False]
    assert scores["C1"][1] == lines[1].split("\t")[14] or not lines[1].split("\t")[14]
    assert [row["row"] for row in result.skipped] == [1, 4, 6]


def test_what_is_not_named_or_not_there(capsys):
    assert main(["predict", "m[12]", "--out", "s.csv"]) == 2
    assert main(["data", "prepare", "table", "--label", "y", "--out", "p"]) == 2
    assert capsys.readouterr().err.count("no file is named") == 2
    for words in (["m[12]", "no.csv"], ["m[12]", "no*.csv"], ["nowhere", "t.csv"]):
        assert main(["predict", *words, "--out", "s.csv"]) == 1
    Path("score.csv").write_text("price,city,score\n1,a,2\n")
    assert main(["predict", "m[12]", "score.csv", "--keep", "score", "--out", "s.csv"]) == 1
    assert "a column of scores is called that" in capsys.readouterr().err
    before = Path("score.csv").read_bytes()
    assert main(["predict", "m[12]", "score.csv", "--out", "./score.csv"]) == 1
    assert "one of the files to score, which it would replace" in capsys.readouterr().err
    assert Path("score.csv").read_bytes() == before
