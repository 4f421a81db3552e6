"""A table of one's own from the command line: explained, prepared, trained on, and scored."""

import json
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dlrm.cli import main

SMALL = [
    *("--model.bottom", "8", "--model.top", "8", "--model.dim", "4"),
    *("--max-steps", "3", "--run", "run"),
]


def frame(rows: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "price": rng.lognormal(3, 1, rows).round(2),
            "city": rng.choice(["Zürich", "Rome", "[red]Oslo[/]"], rows),
            "tags": ["|".join(rng.choice(list("abcdefgh"), 2)) for _ in range(rows)],
            "row": np.arange(rows),
            "bought": rng.choice(["no", "yes"], rows),
        }
    )


@pytest.fixture
def shop(workdir) -> Path:
    frame().write_csv("shop.csv")
    return workdir


def last(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_infer_writes_a_schema_that_train_takes(shop, capsys):
    assert main(["data", "infer", "shop.csv", "--label", "bought"]) == 0
    said = capsys.readouterr()
    Path("schema.toml").write_text(said.out)
    assert {name: each["kind"] for name, each in tomllib.loads(said.out)["columns"].items()} == {
        "price": "number",
        "city": "category",
        "tags": "list",
        "row": "ignore",
    }
    for word in ("price", "city", "numbers the rows", "because"):
        assert word in said.err
    edited = said.out.replace('scale = "log"', 'scale = "quantile"\nbuckets = 4')
    assert edited != said.out
    Path("schema.toml").write_text(edited)
    assert main(["train", "shop.csv", "--schema", "schema.toml", *SMALL]) == 0
    schema = json.loads(Path("run/schema.json").read_text())
    assert [each["transform"] for each in schema["dense"]] == ["quantile"]
    assert [each["name"] for each in schema["features"]] == ["price bucket", "city", "tags"]


def test_infer_as_json(shop, capsys):
    assert main(["data", "infer", "shop.csv", "--label", "bought", "--json"]) == 0
    found = last(capsys)
    assert found["label"] == "bought"
    assert [each["name"] for each in found["columns"]] == ["price", "city", "tags", "row"]
    assert all(each["why"] for each in found["columns"])
    assert tomllib.loads(found["schema"])["label"] == "bought"


def test_infer_goes_on_where_train_stops(shop, capsys):
    text = Path("shop.csv").read_text().splitlines()
    text[9] = "oops" + text[9][text[9].index(",") :]
    Path("shop.csv").write_text("\n".join(text) + "\n")
    assert main(["train", "shop.csv", "--label", "bought", *SMALL]) == 1
    assert 'shop.csv, line 10, column price: "oops" is not a number' in capsys.readouterr().err
    assert main(["data", "infer", "shop.csv", "--label", "bought"]) == 0
    out = capsys.readouterr().out
    assert tomllib.loads(out)["columns"]["price"]["kind"] == "number"
    assert "BUT shop.csv, line 10" in out
    skip = ["--prepare.bad-rows", "skip"]
    assert main(["train", "shop.csv", "--label", "bought", *skip, *SMALL]) == 0
    assert json.loads(Path("run/dataset.json").read_text())["bad_rows"] == 1


def test_train_explains_and_predict_scores_new_files(shop, capsys):
    assert main(["train", "shop.csv", "--label", "bought", *SMALL]) == 0
    said = capsys.readouterr()
    assert "number, log" in said.err
    assert "numbers the rows" in said.err
    new = frame(50).drop("bought", "row").with_columns(more=pl.lit(1)).reverse()
    new.write_parquet("new.parquet")
    assert main(["predict", "run", "new.parquet", "--out", "scores.csv", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["rows"] == 50
    assert said.err.count("Ignored, because the model does not know them: more") == 1
    scores = pl.read_csv("scores.csv")["score"]
    assert len(scores) == 50
    assert scores.is_between(0, 1).all()
    new.drop("city").write_csv("lacking.csv")
    assert main(["predict", "run", "lacking.csv", "--out", "scores.csv"]) == 1
    assert "lacking.csv, column city: has no such column" in capsys.readouterr().err


def test_a_bad_row_to_score_is_named_or_left_out(shop, capsys):
    assert main(["train", "shop.csv", "--label", "bought", *SMALL]) == 0
    Path("new.csv").write_text("price,city,tags\n1.5,Rome,a\ncheap,Rome,b\n2,,\n")
    assert main(["predict", "run", "new.csv", "--out", "scores.csv"]) == 1
    said = capsys.readouterr().err
    assert 'new.csv, line 3, column price: is "cheap", expected a number' in said
    words = ["predict", "run", "new.csv", "--out", "scores.csv", "--bad-rows", "skip", "--json"]
    assert main(words) == 0
    found = last(capsys)
    assert (found["rows"], found["bad_rows"]) == (3, 1)


def test_prepare_table(shop, capsys):
    words = "data prepare table shop.csv --out out --label bought --features.buckets 4 --verify"
    assert main([*words.split(), "--features.crosses", "city*price", "--json"]) == 0
    made = last(capsys)
    assert (made["rows"], made["train_rows"], made["bad_rows"]) == (400, 320, 0)
    manifest = json.loads(Path("out/manifest.json").read_text())
    names = [each["name"] for each in manifest["schema"]["features"]]
    assert names == ["price bucket", "city", "tags", "city x price"]
    assert main([*words.split(), "--features.crosses", "city*price", "--json"]) == 0
    assert last(capsys)["reused"]
    assert main([*words.split()]) == 1
    assert "--force" in capsys.readouterr().err


def test_several_labels_and_weights_are_prepared_and_described(shop, capsys):
    rng = np.random.default_rng(1)
    more = frame().with_columns(
        kept=pl.Series(rng.integers(0, 2, 400)), stars=pl.Series(rng.integers(1, 6, 400))
    )
    more.with_columns(counts=pl.Series(rng.integers(0, 3, 400))).write_csv("more.csv")
    asked = "--label kept --label bought --weight counts"
    assert main(["data", "infer", "more.csv", *asked.split()]) == 0
    said = capsys.readouterr()
    assert "the labels are kept, bought; the weight is counts" in said.err
    schema = tomllib.loads(said.out)
    assert (schema["label"], schema["weight"]) == (["kept", "bought"], "counts")
    assert list(schema["columns"]) == ["price", "city", "tags", "row", "stars"]
    Path("more.toml").write_text(said.out)
    words = "data prepare table more.csv --out out --schema more.toml"
    assert main([*words.split(), "--json"]) == 0
    made = last(capsys)
    assert made["positive_rate"] == made["labels"]["kept"]["positive_rate"] == more["kept"].mean()
    assert made["labels"]["bought"]["positive_rate"] == (more["bought"] == "yes").mean()
    assert main([*f"data prepare table more.csv --out same {asked}".split()]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "positive rate of kept 0." in shown
    assert "positive rate of bought 0." in shown
    for name in ("out", "same"):
        assert main(["data", "describe", name, "--verify", "--json"]) == 0
        train = last(capsys)["splits"][0]
        assert train["positives"] == train["labels"]["kept"]["positives"]
        assert train["labels"]["bought"]["positive_rate"] == pytest.approx(
            train["labels"]["bought"]["positives"] / train["rows"]
        )
    assert main(["data", "describe", "out"]) == 0
    assert "bought:" in capsys.readouterr().out
    words = "data prepare table more.csv --out stars --label stars --task regression"
    assert main([*words.split(), "--json"]) == 0
    assert last(capsys)["mean"] == pytest.approx(more["stars"].mean())
    assert main(["data", "describe", "stars", "--json"]) == 0
    split = last(capsys)["splits"][0]
    assert (split["min"], split["max"]) == (1, 5)
    assert main(["data", "describe", "stars"]) == 0
    assert "mean" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train shop.csv --label bought --label bought", "the label bought is given twice"),
        ("train shop.csv --label bought --label city", "labels of different kinds: bought has two"),
        ("train shop.csv --label bought --weight nope", 'no weight column "nope"; the columns are'),
        ("train shop.csv --label city --task regression", "the label city holds no numbers"),
        ("train shop.csv --task regression", "which column is to predict? --label COLUMN"),
        ("train shop.csv", "which column says whether it was a click? --label COLUMN"),
        ("train shop.csv --label nope", 'no label column "nope"; the columns are price, city'),
        ("train shop.csv --label city", "the label city has 3 values"),
        ("train nothing.csv --label a", "nothing.csv: there is no such file"),
        ("train shop.csv --label bought --schema no.toml", "no.toml: cannot be read: No such file"),
        ("data infer shop.csv", "--label COLUMN"),
        ("data infer nothing.csv --label a", "nothing.csv: there is no such file"),
        ("data prepare table nothing.csv --out o --label a", "nothing.csv: there is no such file"),
        ("data prepare table shop.csv --out o --label bought --min-count 3", "features.min_count"),
    ],
)
def test_mistakes_are_said(shop, capsys, words, said):
    more = SMALL if words.startswith("train") else []
    assert main([*words.split(), *more]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in shop.iterdir() if path.name != "prepared"] == ["shop.csv"]
    assert not list(shop.glob("prepared/*"))
