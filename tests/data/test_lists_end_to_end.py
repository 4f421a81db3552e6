"""Lists beside one-hot ids, a shared table, two labels and weights, through everything that reads.

A table goes in; what comes out of training must be what batches made by hand give.
"""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from dlrm import models, optim
from dlrm.batch import Batch, Jagged
from dlrm.commands.compare import compare
from dlrm.commands.compress import compress
from dlrm.commands.describe import describe
from dlrm.commands.evaluate import evaluate
from dlrm.commands.report import report
from dlrm.data import loader
from dlrm.data.features import toml
from dlrm.data.features.columns import Column, Columns
from dlrm.data.loader import Loader, LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset, Split, verify
from dlrm.errors import ConfigError, Interrupted
from dlrm.models import MODELS, ModelConfig
from dlrm.nn.embedding import parameter_groups
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training import interrupt
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig
from dlrm.training.loss import bce
from dlrm.training.trainer import Trainer

from .ragged import unpacked

SIZES = {"dim": 4, "bottom": (8,), "top": (8,), "deep": (8, 6), "first": (8,), "second": (8,)}
"""Of a small model, of those fields that it has."""
COLUMNS = (
    Column(name="price", kind="number"),
    Column(name="age", kind="number"),
    Column(name="user", kind="category"),
    Column(name="tags", kind="list"),
    Column(name="item", kind="category"),
    Column(name="history", kind="sequence", table="item", max_length=5),
)


def fit(config: TrainConfig, dataset: Dataset, run: Run, *, resume: bool = False) -> nn.Module:
    return Trainer(config, dataset, run, again=resume).fit().model


def rows(count: int = 210, seed: int = 0) -> pl.DataFrame:
    """Return rows whose clicks follow the user, and whose sales follow clicks."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 30, count)
    clicks = rng.random(count) < np.where(user % 2 == 0, 0.8, 0.2)
    items = [f"item {number}" for number in range(50)]
    return pl.DataFrame(
        {
            "price": rng.random(count),
            "age": rng.random(count),
            "user": [f"user {number}" for number in user],
            "tags": [rng.choice(list("abcdefghijk"), rng.integers(0, 4)).tolist() for _ in user],
            "item": rng.choice(items, count),
            "history": [rng.choice(items, rng.integers(0, 8)).tolist() for _ in user],
            "click": clicks.astype(np.int64),
            "sale": (clicks & (rng.random(count) < 0.5)).astype(np.int64),
            "importance": rng.random(count) + 0.5,
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """150 rows to train on, 30 to validate and 30 to test."""
    folder = tmp_path_factory.mktemp("lists")
    schema = Columns(labels=("click", "sale"), columns=COLUMNS, weight="importance")
    (folder / "schema.toml").write_text(toml.dumps(schema))
    config = PrepareConfig(
        schema=str(folder / "schema.toml"), split="chronological", fractions=(150, 30, 30)
    )
    return prepare(FrameSource(rows()), folder / "dataset", config, quiet=True).dataset


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Several windows an epoch, the last of which is short."""
    monkeypatch.setattr(loader, "BLOCK_ROWS", 8)
    monkeypatch.setattr(loader, "WINDOW_ROWS", 50)


def small(name: str) -> ModelConfig:
    default = MODELS[name]()
    names = {field.name for field in fields(default)}
    chosen: dict[str, Any] = {key: value for key, value in SIZES.items() if key in names}
    if name == "mf":
        chosen["item"] = "tags"
    if name == "wide_deep":
        chosen["crosses"] = ("user*tags",)
    return replace(default, **chosen)


def config_of(name: str, **settings) -> TrainConfig:
    return TrainConfig(
        model=small(name),
        optim=OptimConfig(name="rowwise_adagrad", lr=0.05),
        loader=LoaderConfig(batch_size=16, seed=3),
        eval=EvalConfig(every=7),
        log_every=1,
        seed=4,
        precision="fp32",
        **settings,
    )


def start(path: Path, config: TrainConfig, dataset: Dataset) -> Run:
    return Trainer.create(path, "custom", config, dataset).run


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.metrics() if row["event"] == "train"]


def test_the_arrays_are_what_the_rows_say(dataset):
    verify(dataset)
    schema, frame = dataset.schema, rows()[:150]
    assert [feature.name for feature in schema.one_hot_features] == ["user", "item"]
    assert [(f.name, f.kind, f.table) for f in schema.list_features] == [
        ("tags", "bag", "tags"),
        ("history", "sequence", "item"),
    ]
    split = dataset.split("train")
    np.testing.assert_array_equal(split.labels, frame["click", "sale"].to_numpy())
    np.testing.assert_array_equal(split.weights, frame["importance"].to_numpy().astype(np.float32))
    assert split.lists is not None
    lists = unpacked(split.lists, 2)
    assert [len(tags) for tags, _ in lists] == frame["tags"].list.len().to_list()
    # The newest, which are the last; the same values have the same ids in both columns.
    ids: dict[str, set[int]] = {}
    for value, id in zip(frame["item"], split.ids[:, 1].tolist(), strict=True):
        ids.setdefault(value, set()).add(id)
    for values, (_, history) in zip(frame["history"], lists, strict=True):
        assert len(history) == min(len(values), 5)
        for value, id in zip(values.to_list()[-5:], history, strict=True):
            ids.setdefault(value, set()).add(id)
    assert all(len(each) == 1 for each in ids.values())
    assert len(set.union(*ids.values())) == len(ids)


def by_hand(split: Split, chosen: list[int]) -> Batch:
    """Return rows of a split as a batch, id by id."""
    assert split.lists is not None
    assert split.weights is not None
    lists = unpacked(split.lists, 2)
    ids, offsets = [], [0]
    for row in chosen:
        for listed in lists[row]:
            ids += listed
            offsets.append(len(ids))
    return Batch(
        torch.tensor([split.dense[row].tolist() for row in chosen]),
        torch.tensor([split.ids[row].tolist() for row in chosen]),
        torch.tensor([[float(label) for label in split.labels[row]] for row in chosen]),
        Jagged(torch.tensor(ids), torch.tensor(offsets)),
        torch.tensor([float(split.weights[row]) for row in chosen]),
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_as_on_batches_made_by_hand(name, dataset, tmp_path):
    config = config_of(name, max_steps=3)
    run = start(tmp_path / "run", config, dataset)
    fit(config, dataset, run)

    split = dataset.split("train")
    places = np.arange(len(split), dtype=np.int32)[:, None]
    order = Loader(
        Split("train", split.dense, places, split.labels),
        batch_size=16,
        shuffle=True,
        seed=config.loader.seed,
    )
    torch.manual_seed(config.seed)
    model = models.build(config.model, dataset.schema)
    optimizer = optim.build("rowwise_adagrad", parameter_groups(model), 0.05)
    expected = []
    for batch, _ in zip(order.epoch(0), range(3), strict=False):
        hand = by_hand(split, batch.ids[:, 0].tolist())
        loss = bce(model(hand), hand.labels, hand.weights)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert losses(run) == expected


@pytest.mark.parametrize("stop", [1, 4, 13])
def test_a_resumed_run_equals_one_that_never_stopped(dataset, tmp_path, monkeypatch, stop):
    config = config_of("deepfm", epochs=2, checkpoint=CheckpointConfig(every=5))
    whole = start(tmp_path / "whole", config, dataset)
    straight = fit(config, dataset, whole)

    class Stop(interrupt.Interrupt):
        """Wants to stop once it was asked so often, once a step."""

        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return self.asked > stop

    halved = start(tmp_path / "halved", config, dataset)
    with monkeypatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", Stop)
        with pytest.raises(Interrupted):
            fit(config, dataset, halved)
    assert len(losses(halved)) < 20
    torch.manual_seed(99)
    resumed = fit(config, dataset, halved, resume=True)
    assert losses(halved) == losses(whole)
    assert len(losses(whole)) == 20
    for one, other in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory) -> Path:
    config = config_of("dlrm", epochs=2)
    path = tmp_path_factory.mktemp("run") / "run"
    Trainer.complete(path, "custom", config, dataset, title="training")
    return path


def test_commands_read_runs_on_lists(finished, dataset):
    result = evaluate(finished, by="user", user="item", label="sale", intervals=False)
    assert result.labels["sale"]["samples"] == 30
    assert sum(segment["samples"] for segment in result.segments) == 30
    whole, again = evaluate(finished, intervals=False), Run.open(finished).evaluation("test")
    assert again is not None
    assert list(again["labels"]) == list(whole.labels) == ["click", "sale"]
    for label, values in whole.labels.items():
        assert values["log_loss"] == again["labels"][label]["metrics"]["log_loss"]
    with pytest.raises(ConfigError, match="several labels: say which"):
        evaluate(finished, by="user")
    with pytest.raises(ConfigError, match=r'"tags" holds lists of ids.* of: user, item, price'):
        evaluate(finished, by="tags", label="click")
    with pytest.raises(ConfigError, match=r'"history" holds lists of ids'):
        evaluate(finished, user="history", label="click")
    described = describe(dataset.path, verify=True)
    kinds = [(feature["name"], feature["kind"]) for feature in described.features]
    assert kinds[3:] == [("tags", "bag"), ("item", "one_hot"), ("history", "sequence")]
    smaller = compress(finished)
    assert {"fp32", "int8"} <= {candidate.name for candidate in smaller.sweep.candidates}


def test_the_report_draws_lists(finished):
    pytest.importorskip("matplotlib")
    page = report(finished).report.read_text()
    assert re.search(r"<th[^>]*>tags</th><td>bag</td>", page)


def test_trees_say_that_they_take_no_lists(dataset, tmp_path):
    pytest.importorskip("lightgbm")
    config = replace(config_of("lr"), data=str(dataset.path))
    with pytest.raises(ConfigError, match="trees take one value a feature, but tags holds"):
        compare(config, models=["trees"], seeds=1, rates=(1.0,), run=tmp_path / "compared")
