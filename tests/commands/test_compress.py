"""`dlrm compress`: smaller tables of a run, measured, written and drawn."""

import json
from pathlib import Path

import pytest
import torch

from dlrm import models
from dlrm.batch import Batch
from dlrm.cli import main
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import materialize
from dlrm.nn.tables import TablesConfig
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.checkpoint import load_best
from dlrm.training.compression import PRECISIONS, Candidate, Sweep, variants
from dlrm.training.config import from_dict

SMALL = ["--model.bottom", "8", "--model.top", "8", "--model.dim", "8", "--eval.every", "1000"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with one trained and compressed."""
    folder = tmp_path_factory.mktemp("compressed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["train", "demo", "--data", "clicks:3000", "--no-baseline", "--run", "run"]
        assert main([*words, *SMALL]) == 0
    return folder / "run"


def compress(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["compress", str(run), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_fewer_bits(run, capsys):
    found = compress(run, capsys)
    rows = {row["name"]: row for row in found["candidates"]}
    assert list(rows) == ["fp32", *PRECISIONS]
    config = from_dict(Run.open(run).config)
    schema = Run.open(run).schema
    assert rows["fp32"]["size_bytes"] == 4 * 8 * sum(schema.num_embeddings)
    assert [row["ratio"] for row in rows.values()] == pytest.approx([1, 2, 2, 2, 4, 32 / 6])
    evaluation = Run.open(run).evaluation("test")
    assert evaluation is not None
    for metric in ("auc", "log_loss", "calibration"):
        assert rows["fp32"][metric] == evaluation["metrics"][metric]
    assert rows["fp32"]["auc_change"] == rows["fp32"]["log_loss_change"] == 0
    # Each is measured: fewer bits give other scores, but hardly.
    losses = [row["log_loss"] for row in rows.values()]
    assert len(set(losses)) == len(rows)
    assert max(losses) - min(losses) < 0.02
    assert json.loads((run / "compress.json").read_text()) == found
    assert found["samples"] == len(Dataset.open(Path(found["data"])).split("test"))
    page = (run / "compress.html").read_text()
    assert page.count("<svg") >= 2
    assert "int4" in page
    # The run itself is as it was.
    model = load_best(Run.open(run), models.build(config.model, schema))
    assert isinstance(model, DLRM)
    assert model.embeddings.size_bytes == rows["fp32"]["size_bytes"]


def test_trained_tables(run, capsys):
    words = ["--train", "--collisions", "4", "5000", "--temperatures", "0.4"]
    found = compress(run, capsys, *words)
    rows = {row["name"]: row for row in found["candidates"]}
    assert {"qr 4", "mixed_dim 0.4", "hash 4"} <= rows.keys()
    for name in ("qr 4", "mixed_dim 0.4", "hash 4"):
        assert rows[name]["ratio"] > 1.2
        theirs = Run.open(Path(rows[name]["run"]))
        evaluation = theirs.evaluation("test")
        assert evaluation is not None
        assert rows[name]["log_loss"] == evaluation["metrics"]["log_loss"]
        assert theirs.config["model"]["tables"]["compression"] == rows[name]["method"]
    # What cannot apply is named, with the reason.
    assert found["skipped"].keys() == {"qr 5000", "hash 5000"}
    assert "applies to no table" in found["skipped"]["qr 5000"]
    # Again: nothing is trained a second time.
    before = {path: path.stat().st_mtime_ns for path in run.glob("compress/*/metrics.jsonl")}
    assert len(before) == 3
    assert compress(run, capsys, *words)["candidates"] == found["candidates"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_of_compressed_tables_can_get_fewer_bits(run, capsys):
    found = compress(run / "compress" / "qr-4", capsys)
    assert [row["name"] for row in found["candidates"]] == ["qr", *PRECISIONS]
    assert found["candidates"][-1]["ratio"] > 3 * found["candidates"][0]["ratio"]


def test_a_run_that_was_trained_for_codes_becomes_them(run, capsys):
    words = ["train", "demo", "--data", "clicks:3000", "--no-baseline", "--run", "qat", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        assert main([*words, "--model.tables.qat", "int4"]) == 0
        capsys.readouterr()
        found = compress(Path("qat"), capsys)
    base, small = found["candidates"]
    assert (base["name"], small["name"]) == ("qat int4", "int4")
    assert small["ratio"] == 4
    assert small["log_loss"] == pytest.approx(base["log_loss"], abs=1e-6)
    assert "trained for int4 codes, not for int8" in found["skipped"]["int8"]


def test_for_people(run, capsys):
    assert main(["compress", str(run)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "log loss" in out
    assert "of the run's log loss" in out
    assert "Report:" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "pca"], 'unknown method "pca"; choose one of: qr, mixed_dim, hash'),
        (["--split", "later"], "later"),
        (["--train", "--collisions", "1"], "tables.collisions is 1: at least 2"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be(run, words, said, capsys):
    assert main(["compress", str(run), *words]) == 1
    assert said in capsys.readouterr().err


def test_no_run(tmp_path, capsys):
    assert main(["compress", str(tmp_path / "none")]) == 1
    assert "no such run directory" in capsys.readouterr().err


def candidate(name: str, size: int, loss: float) -> Candidate:
    return Candidate(
        name=name, method=name, size_bytes=size, ratio=100 / size, auc=0.7, log_loss=loss,
        normalized_entropy=0.9, calibration=1.0,
    )  # fmt: skip


def test_frontier_and_choice():
    found = Sweep(
        candidates=(
            candidate("base", 100, 0.5),
            candidate("same size, worse", 100, 0.51),
            candidate("half", 50, 0.5004),
            candidate("half, worse", 50, 0.502),
            candidate("beaten", 60, 0.5005),
            candidate("tiny", 10, 0.52),
        ),
        skipped={},
    )
    assert [each.name for each in found.frontier] == ["tiny", "half", "base"]
    assert found.choice.name == "half"


def test_variants_keep_storage_and_leave_out_tables_that_are_too_small():
    base = TablesConfig(storage="bf16", init_std=0.1, compression="qr", operation="add")
    made = {name: tables for name, _, tables in variants(base, ("qr", "hash"), (4, 100), ())}
    assert list(made) == ["qr 4", "qr 100", "hash 4", "hash 100"]
    assert made["qr 100"].threshold == 400
    assert made["hash 4"] == TablesConfig(storage="bf16", init_std=0.1, compression="hash")
    built = materialize(made["qr 100"].build(Schema.one_hot(0, [401]), 4))
    batch = Batch(torch.zeros(1, 0), torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1))
    assert built(batch).shape == (1, 1, 4)
    with pytest.raises(ConfigError, match="applies to no table"):
        made["qr 100"].build(Schema.one_hot(0, [400]), 4)
