"""A model in a file of its own, with two labels and a history that shares the table of items."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.data.resolve import resolve
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.models import find
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.recipes.own import own
from dlrm.run import Run
from dlrm.training.compression import sweep
from dlrm.training.config import TrainConfig, from_dict, to_dict, with_tables
from dlrm.training.load import load_model
from dlrm.training.predictor import Predictor
from dlrm.training.trainer import Trainer

NAME = "own_model:HistoryConfig"
SCHEMA = """
label = ["bought", "liked"]

[columns.user]
kind = "category"

[columns.item]
kind = "category"
table = "item"

[columns.history]
kind = "sequence"
table = "item"
max_length = 4
"""


def table(rows: int = 3000) -> pl.DataFrame:
    """Rows in which items of the kind that was seen before are bought."""
    rng = np.random.default_rng(0)
    items = rng.integers(0, 30, rows)
    seen = [rng.integers(0, 30, length) for length in rng.integers(0, 7, rows)]
    alike = np.array(
        [len(s) > 0 and np.mean(s % 2 == i % 2) > 0.5 for i, s in zip(items, seen, strict=True)]
    )
    return pl.DataFrame(
        {
            "user": [f"u{n}" for n in rng.integers(0, 20, rows)],
            "item": [f"i{n}" for n in items],
            "history": [[f"i{n}" for n in s] for s in seen],
            "bought": (rng.random(rows) < 0.1 + 0.8 * alike).astype(int),
            "liked": (rng.random(rows) < 0.3 + 0.3 * (items % 3 == 0)).astype(int),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table, its schema and the model."""
    folder = tmp_path_factory.mktemp("own")
    table().write_parquet(folder / "rows.parquet")
    (folder / "schema.toml").write_text(SCHEMA)
    shutil.copy(Path(__file__).with_name("own_model.py"), folder)
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    prepare = replace(own().prepare, schema=str(folder / "schema.toml"))
    return resolve(folder / "rows.parquet", prepare, cache=folder)


def config() -> TrainConfig:
    return replace(
        own(),
        data="rows.parquet",
        prepare=replace(own().prepare, schema="schema.toml"),
        model=find(NAME)(dim=4),  # pyright: ignore[reportCallIssue]
        optim=OptimConfig(name="adagrad", lr=0.1, embedding_l2=1e-4, embedding_rows="touched"),
        loader=replace(own().loader, batch_size=64),
        epochs=6,
        log_every=1,
        threads=1,
        baseline=False,
    )


@pytest.fixture(scope="module")
def trained(folder: Path, dataset: Dataset) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        run, _ = Trainer.complete(folder / "run", "own", config(), dataset, title="own")
    return run


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.metrics() if row["event"] == "train"]


def test_history_and_item_share_a_table(trained):
    schema = trained.schema
    assert {f.name: f.table for f in schema.features if f.name != "user"} == {
        "item": "item", "history": "item",
    }  # fmt: skip
    assert len(load_model(trained).embeddings.layout.tables) == 2  # pyright: ignore


def test_it_learns_both_labels_and_says_how_well(trained):
    curve = losses(trained)
    assert np.mean(curve[-10:]) < 0.93 * np.mean(curve[:10])
    evaluation = trained.evaluation("test")
    assert evaluation is not None
    assert list(evaluation["labels"]) == ["bought", "liked"]
    bought, liked = evaluation["labels"].values()
    # The first label also stands at the top.
    assert evaluation["metrics"] == bought["metrics"]
    assert bought["metrics"]["auc"] > 0.65
    assert bought["metrics"] != liked["metrics"]
    best = [row for row in trained.metrics() if row["event"] == "best"][-1]
    events = [row for row in trained.metrics() if row.get("split") == "validation"]
    (chosen,) = (row for row in events if row["step"] == best["step"])
    assert best["value"] == np.mean(
        [values[best["metric"]] for values in chosen["labels"].values()]
    )


def test_the_run_knows_its_model(trained):
    assert trained.config["model"]["name"] == NAME
    assert from_dict(trained.config) == from_dict(to_dict(from_dict(trained.config)))
    predictor = Predictor.open(trained.path, "cpu")
    rows = table().drop("bought", "liked")
    scores = predictor.scores(rows)
    assert scores.shape == (len(rows), 2)
    # Nobody has to keep the order of the columns, or to have seen an item before.
    assert np.array_equal(predictor.scores(rows.select("history", "user", "item")), scores)
    assert np.isfinite(predictor.scores(rows.with_columns(item=pl.lit("new")))).all()


def test_two_processes_learn_what_one_learns(trained, folder):
    flags = {
        "max-steps": 15, "loader.batch-size": 64, "log-every": 1, "threads": 1, "model.dim": 4,
        "optim.name": "adagrad", "optim.lr": 0.1, "optim.embedding-l2": 1e-4,
        "optim.embedding-rows": "touched",
    }  # fmt: skip
    words = ["train", "rows.parquet", "--schema", "schema.toml", "--model", NAME, "--run", "two"]
    words += ["--procs", "2", "--no-baseline", *(f"--{k}={v}" for k, v in flags.items())]
    paths = [str(folder), str(Path(dlrm.__file__).parents[1])]
    subprocess.run(
        [sys.executable, "-m", "dlrm", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    assert losses(Run.open(folder / "two")) == pytest.approx(losses(trained)[:15], abs=1e-6)


def test_tables_that_it_does_not_let_choose_get_fewer_bits_but_are_not_replaced(trained, dataset):
    swept = sweep(trained, config(), dataset, dataset.split("test"), [], lambda: None)
    assert swept.base.name == "fp32"
    with pytest.raises(ConfigError, match="own_model:HistoryConfig has no field `tables`"):
        with_tables(config().model, TablesConfig())
