"""Scores in memory, beside those of files and of evaluations."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import dlrm
from dlrm.batch import Batch, Jagged
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.sources.criteo import CATEGORIES, INTEGERS
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, IdError, InputError, RunError
from dlrm.metrics import sigmoid
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.fm import FMConfig
from dlrm.recipes.own import own
from dlrm.run import Run
from dlrm.training import ensemble
from dlrm.training.config import EvalConfig, TrainConfig
from dlrm.training.evaluate import predict_split
from dlrm.training.load import load_model
from dlrm.training.predictor import Predictor
from dlrm.training.trainer import Trainer
from recipes.films import SCHEMA, films

ROWS = 400
CONFIG = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
    loader=replace(own().loader, batch_size=100),
    eval=EvalConfig(batch_size=128, metric="log_loss"),
    max_steps=6,
)
NUMBERS, MEMBERS = "numbers", "members"
TABLES = (
    *("two labels", NUMBERS, "histories"),
    *(MEMBERS, f"{MEMBERS} by probabilities", f"{NUMBERS} of {MEMBERS} by probabilities"),
)


def log() -> pl.DataFrame:
    """Return the rows of a log, without labels."""
    return pl.concat(list(ClicksSource(ROWS, seed=3).read())).drop("label", "truth")


def features_of(kind: str) -> pl.DataFrame:
    """Return the raw rows that a kind of run was trained on, without labels."""
    return log() if kind == "log" else films(ROWS).drop("finished", "liked", "stars", "counts")


def written(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a log as its text has them."""
    return frame.with_columns(
        pl.Series(name, [None if v is None else f"{v:08x}" for v in frame[name]], pl.String)
        for name in CATEGORIES
    )


def dataset(kind: str, folder: Path) -> Dataset:
    if kind == "log":
        return prepare(ClicksSource(ROWS, seed=3), folder, PrepareConfig()).dataset
    regression = NUMBERS in kind
    labels = ("stars",) if regression else ("finished", "liked")
    rows = films(ROWS).drop(*(("finished", "liked") if regression else ("stars",)), "counts")
    config = PrepareConfig(label=labels, task="regression" if regression else "classification")
    if kind == "histories":
        (folder.parent / "films.toml").write_text(SCHEMA)
        config = replace(config, schema=str(folder.parent / "films.toml"))
    return prepare(FrameSource(rows), folder, config, quiet=True).dataset


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a kind of run -> where it is."""
    folder, paths = tmp_path_factory.mktemp("runs"), {}
    for kind in ("log", *TABLES):
        config = CONFIG
        if NUMBERS in kind:
            config = replace(config, eval=replace(config.eval, metric="auto"))
        if MEMBERS in kind:
            config = replace(config, ensemble=3, ensemble_models=(FMConfig(dim=2),))
        if kind.endswith("probabilities"):
            config = replace(config, ensemble_mean="probabilities")
        (folder / kind).mkdir()
        data = dataset(kind, folder / kind / "data")
        paths[kind] = folder / kind / "run"
        Trainer.complete(paths[kind], "own", config, data, title="")
    return paths


KINDS = pytest.mark.parametrize("kind", ["log", *TABLES])


@KINDS
def test_scores_are_those_of_the_rows_in_a_file(kind, runs, tmp_path):
    frame = features_of(kind)
    if kind == "log":
        file = tmp_path / "rows.txt"
        texts = written(frame).select(*INTEGERS, *CATEGORIES)
        texts.write_csv(file, separator="\t", include_header=False, null_value="")
    else:
        file = tmp_path / "rows.csv"
        frame.write_csv(file)
    dlrm.predict(runs[kind], [file], out=tmp_path / "scores.parquet")
    scores = Predictor.open(runs[kind]).scores(frame)
    np.testing.assert_array_equal(pl.read_parquet(tmp_path / "scores.parquet").to_numpy(), scores)


@KINDS
def test_scores_are_those_of_the_evaluation(kind, runs):
    run = Run.open(runs[kind])
    data = Dataset.open(Path(run.dataset["path"]))
    model = load_model(run)
    expected = [
        predict_split(model, data.split(name), 128).arrays()[0]
        for name in ("train", "validation", "test")
    ]
    logits = np.concatenate(expected)
    scores = Predictor.open(run).scores(features_of(kind))
    assert scores.shape == (ROWS, run.schema.num_labels)
    assert scores.dtype == np.float32
    wanted = logits if run.schema.task == "regression" else sigmoid(logits)
    # Splits are drawn at random: the same rows in another order, and in other batches.
    for k in range(scores.shape[1]):
        np.testing.assert_allclose(np.sort(scores[:, k]), np.sort(wanted[:, k]), rtol=1e-2)


def test_a_split_is_scored_to_the_bit(runs, tmp_path):
    source = ClicksSource(ROWS, seed=3)
    data = prepare(source, tmp_path / "data", PrepareConfig(split="chronological")).dataset
    run, _ = Trainer.complete(tmp_path / "run", "own", CONFIG, data, title="")
    logits, _, _ = predict_split(load_model(run), data.split("train"), 128).arrays()
    scores = Predictor.open(run).scores(log()[: len(logits)])
    np.testing.assert_array_equal(scores, sigmoid(logits).astype(np.float32))


@KINDS
def test_eight_threads_are_as_one(kind, runs):
    predictor, frame = Predictor.open(runs[kind]), features_of(kind)
    pieces = [frame[start : start + size] for start in range(0, 390, 30) for size in (1, 7, 60)]
    expected = [predictor.scores(piece) for piece in pieces]
    fresh = Predictor.open(runs[kind])  # nothing of which was used before
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            for mine, theirs in zip(pool.map(fresh.scores, pieces), expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)


@KINDS
def test_rows_go_through_in_pieces(kind, runs):
    predictor, frame = Predictor.open(runs[kind]), features_of(kind)
    assert predictor.batch_size == 128
    whole = predictor.logits(predictor.encode(frame)).numpy()
    scores = whole if NUMBERS in kind else sigmoid(whole)
    np.testing.assert_allclose(predictor.scores(frame), scores, rtol=1e-2)
    predictor.batch_size = 50
    np.testing.assert_allclose(predictor.scores(frame), scores, rtol=1e-2)


@KINDS
def test_no_rows_have_no_scores(kind, runs):
    predictor, frame = Predictor.open(runs[kind]), features_of(kind)
    labels = predictor.schema.num_labels
    assert predictor.scores(frame[:0]).shape == (0, labels)
    assert predictor.logits(predictor.encode(frame[:0])).shape == (0, labels)


@pytest.mark.parametrize("kind", [kind for kind in TABLES if MEMBERS in kind])
def test_an_ensemble_is_the_mean_of_its_members(kind, runs):
    run, frame = Run.open(runs[kind]), features_of(kind)
    predictor = Predictor.open(run)
    batch = predictor.encode(frame)
    members = [Predictor.open(ensemble.folder(run, k)).logits(batch).numpy() for k in range(3)]
    assert not np.allclose(members[0], members[1])
    logits = np.stack(members).astype(np.float64)
    if NUMBERS in kind:
        # There are no probabilities of numbers.
        wanted = logits.mean(axis=0)
    elif kind == MEMBERS:
        wanted = 1 / (1 + np.exp(-logits.mean(axis=0)))
    else:
        wanted = (1 / (1 + np.exp(-logits))).mean(axis=0)
    np.testing.assert_allclose(predictor.scores(frame), wanted, rtol=1e-2)


@KINDS
def test_frames_of_every_kind_are_taken(kind, runs):
    predictor, frame = Predictor.open(runs[kind]), features_of(kind)
    expected = predictor.scores(frame[:3])
    others: list[Any] = [
        frame[:3].select(reversed(frame.columns)).with_columns(unknown=pl.lit("x")),
        frame[:3].to_dict(as_series=False),
        frame[:3].to_dicts(),
    ]
    try:
        import pandas as pd
    except ImportError:
        pass
    else:
        others.append(pd.DataFrame(frame[:3].to_dict(as_series=False)))
    for other in others:
        np.testing.assert_array_equal(predictor.scores(other), expected)


def test_hexadecimal_texts_of_a_log_are_its_integers(runs):
    predictor, frame = Predictor.open(runs["log"]), log()
    texts = written(frame)
    np.testing.assert_array_equal(predictor.scores(texts), predictor.scores(frame))
    np.testing.assert_array_equal(predictor.scores(texts[5]), predictor.scores(frame[5]))
    for rows in (1, 300):
        bad = texts[:rows].with_columns(pl.lit("Rome").alias("C7"))
        with pytest.raises(InputError, match=r"row 1, column C7: .* hexadecimal"):
            predictor.scores(bad)


@KINDS
def test_values_that_nobody_saw_and_missing_ones_are_taken(kind, runs):
    predictor, frame = Predictor.open(runs[kind]), features_of(kind)
    unseen = {
        name: pl.lit("nobody" if dtype == pl.String else 4_000_000_000, dtype)
        for name, dtype in frame.schema.items()
        if dtype in (pl.String, pl.UInt32)
    }
    for rows in (1, 100):
        batch = predictor.encode(frame[:rows].with_columns(**unseen))
        last = [table - 1 for table in predictor.schema.num_embeddings]
        single = [last[k] for k, f in enumerate(predictor.schema.features) if not f.is_list]
        assert (batch.ids == torch.tensor(single)).all()
        gone = frame[:rows].with_columns(pl.lit(None, t).alias(n) for n, t in frame.schema.items())
        assert np.isfinite(predictor.scores(gone)).all()


@pytest.mark.parametrize("rows", [1, 100])
def test_what_is_wrong_names_the_column(rows, runs):
    predictor, frame = Predictor.open(runs["histories"]), films(ROWS)[:rows]
    with pytest.raises(InputError, match="column film: has no such column"):
        predictor.scores(frame.drop("film"))
    with pytest.raises(InputError, match=r"column film: holds List\(String\), but single values"):
        predictor.encode(frame.with_columns(pl.concat_list("film")))
    with pytest.raises(InputError, match='row 1, column minutes: is "long", expected a number'):
        predictor.encode(frame.with_columns(minutes=pl.lit("long")))
    with pytest.raises(InputError, match='row 1, column minutes: is "inf", expected a number'):
        predictor.encode(frame.with_columns(minutes=pl.lit(float("inf"))))


def test_ids_of_a_batch_made_by_hand_are_checked(runs):
    predictor = Predictor.open(runs["histories"])
    batch = predictor.encode(films(20))
    assert batch.lists is not None
    wrong = batch.ids.clone()
    wrong[3, 1] = 10_000
    with pytest.raises(IdError, match="film: id 10000 is out of range"):
        predictor.logits(replace(batch, ids=wrong))
    values = batch.lists.values.clone()
    values[0] = -1
    with pytest.raises(IdError, match="seen: id -1 is out of range"):
        predictor.logits(replace(batch, lists=Jagged(values, batch.lists.offsets)))
    with pytest.raises(IdError, match="0 lists for 20 samples"):
        predictor.logits(Batch(batch.dense, batch.ids, batch.labels))


def test_the_run_may_go_once_it_is_open(runs, tmp_path):
    shutil.copytree(runs["histories"], tmp_path / "run")
    predictor = Predictor.open(str(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run")
    frame = features_of("histories")
    expected = Predictor.open(runs["histories"]).scores(frame)
    np.testing.assert_array_equal(predictor.scores(frame), expected)
    assert not predictor.model.training
    assert predictor.features.labels == predictor.schema.labels == ("finished", "liked")


def test_what_is_no_run_is_refused(runs, tmp_path):
    with pytest.raises(RunError, match="no such run directory"):
        Predictor.open(tmp_path / "nowhere")
    shutil.copytree(runs["log"], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(RunError, match="has no checkpoint yet"):
        Predictor.open(tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device is cuda"):
            Predictor.open(runs["log"], device="cuda")
    for file in ("features.json", "vocabulary"):
        shutil.copytree(runs["histories"], tmp_path / file)
    shutil.copy(runs["log"] / "schema.json", tmp_path / "features.json" / "schema.json")
    with pytest.raises(RunError, match=r"schema\.json (was altered|has \d+ bytes)"):
        Predictor.open(tmp_path / "features.json")
