"""`dlrm export` and `dlrm runtimes` on a small run."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.commands.runtimes import compare_runtimes as runtimes
from dlrm.errors import ConfigError, RunError
from dlrm.runtimes import contrast

pytest.importorskip("onnxruntime")
GUIDE = Path(__file__).parents[2] / "docs/guides/export.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on a table with a number that is piecewise, a category and lists."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    rows = 400
    frame = pl.DataFrame(
        {
            "price": np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2.0, size=rows)).tolist(),
            "age": rng.integers(18, 80, rows),
            "city": rng.choice(["rome", "oslo", "lima"], rows),
            "seen": ["|".join(rng.choice([*"abcd"], rng.integers(0, 4))) for _ in range(rows)],
            "label": rng.integers(0, 2, rows),
        }
    ).with_columns(pl.col("price").fill_nan(None))
    frame.write_csv(folder / "table.csv")
    (folder / "schema.toml").write_text(
        'label = "label"\n'
        '[columns.price]\nkind = "number"\nscale = "piecewise"\nbins = 5\nmissing_flag = true\n'
        '[columns.age]\nkind = "number"\nscale = "standard"\nbuckets = 4\n'
        '[columns.city]\nkind = "category"\n'
        '[columns.seen]\nkind = "sequence"\nseparator = "|"\nmax_length = 2\n'
    )
    words = [
        "--prepare.schema",
        str(folder / "schema.toml"),
        "--epochs",
        "1",
        "--precision",
        "fp32",
    ]
    path = folder / "runs/one"
    assert main(["train", str(folder / "table.csv"), *words, "--run", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", str(run), "--to", "onnx", "--out", str(out), "--with-features"]) == 0
    return out


def test_the_reader_of_the_guide_makes_the_inputs(run, exported):
    import onnxruntime

    reader = next(
        block
        for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        if "class Reader" in block
    )
    assert reader.count("\n") <= 56
    names: dict = {}
    exec(compile(reader, str(GUIDE), "exec"), names)
    rows = {
        "price": [0.5, None, 3.0, 99.0],
        "age": [20, 50, None, 300],
        "city": ["rome", "nowhere", None, "lima"],
        "seen": [["a", "b", "c"], [], None, ["z", "d"]],
    }
    session = onnxruntime.InferenceSession(str(exported))
    inputs = names["Reader"](f"{exported}.features").inputs(rows)
    (logits,) = session.run(None, inputs)
    texts = {**rows, "seen": ["|".join(some or []) or None for some in rows["seen"]]}
    expected = dlrm.Predictor.open(run).scores(texts, raw=True)
    np.testing.assert_allclose(np.asarray(logits), expected, atol=1e-5)


def test_runtimes_are_compared_and_drawn(run, exported, capsys, monkeypatch):
    monkeypatch.setattr(contrast, "SHARE_S", 0.0)
    words = ["--only", "eager", "onnx", "--artefacts", str(exported), "--json"]
    assert main(["runtimes", str(run), *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    ours, theirs = (result["runtimes"][name] for name in ("eager", "onnx"))
    assert (ours["max_abs_diff"], ours["verdict"]) == (0, "equal")
    assert theirs["max_abs_diff"] <= 1e-6
    assert (theirs["verdict"], theirs["rank_flips"], theirs["prepare_s"]) == ("equal", 0, None)
    assert set(theirs["latency"]) == {"1", "64", "1024"}
    assert theirs["latency"]["1"]["p50_us"] <= theirs["latency"]["1"]["p99_us"]
    assert json.loads((run / "runtimes.json").read_text())["samples"] == result["samples"]
    page = (run / "runtimes.html").read_text()
    assert "ONNX Runtime" in page
    assert page.count("<svg") == 3


def test_a_runtime_that_answers_otherwise_fails(run, capsys, monkeypatch):
    from dlrm.runtimes.onnx import ONNXSession

    right = ONNXSession.run
    monkeypatch.setattr(contrast, "SHARE_S", 0.0)
    monkeypatch.setattr(ONNXSession, "run", lambda self, inputs: right(self, inputs) + 0.01)
    assert main(["runtimes", str(run), "--only", "eager", "onnx"]) == 1
    shown = capsys.readouterr().out
    assert "ONNX Runtime fails" in " ".join(shown.split())
    out = run.parent / "wrong/model.onnx"
    assert main(["export", str(run), "--to", "onnx", "--out", str(out)]) == 1
    assert "answers otherwise than PyTorch" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def test_what_cannot_be_is_named(run, exported, tmp_path):
    with pytest.raises(ConfigError, match="unknown runtime"):
        runtimes(run, only=("tvm",))
    with pytest.raises(ConfigError, match="is no export"):
        runtimes(run, artefacts=(tmp_path / "model.bin",))
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(exported.read_bytes()[:-10])
    with pytest.raises(RunError, match=r"model\.onnx"):
        runtimes(run, only=("onnx",), artefacts=(damaged,))
    with pytest.raises(ConfigError, match="rows must be positive"):
        runtimes(run, rows=0)
