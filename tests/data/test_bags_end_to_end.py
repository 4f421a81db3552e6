"""A dataset with bags of ids, through everything that reads one."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from dlrm.data.bags import Bags

from dlrm import optim
from dlrm.batch import Batch
from dlrm.commands.compare import compare
from dlrm.commands.compress import compress
from dlrm.commands.describe import describe
from dlrm.commands.evaluate import evaluate
from dlrm.commands.report import report
from dlrm.data import loader
from dlrm.data.loader import Loader, LoaderConfig
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, Interrupted
from dlrm.models import MODELS, ModelConfig
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training import interrupt, runner
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig
from dlrm.training.loop import fit
from dlrm.training.loss import bce

from .ragged import encoder, log, unpacked, write

SIZES = {"dim": 4, "bottom": (8,), "top": (8,), "deep": (8, 6), "first": (8,), "second": (8,)}
"""Of a small model, of those fields that it has."""


def small(name: str) -> ModelConfig:
    default = MODELS[name]()
    names = {field.name for field in fields(default)}
    chosen = {key: value for key, value in SIZES.items() if key in names}
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


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """150 rows to train on, 40 to validate and 40 to test."""
    first, second = log(120), log(110, seed=1)
    pieces = [
        ("train", first, slice(0, 100)),
        ("validation", first, slice(100, 120)),
        ("validation", second, slice(0, 20)),
        ("train", second, slice(20, 70)),
        ("test", second, slice(70, 110)),
    ]
    made = write(tmp_path_factory.mktemp("ragged") / "dataset", pieces)
    encoder(made)
    return made


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Several windows an epoch, the last of which is short."""
    monkeypatch.setattr(loader, "BLOCK_ROWS", 8)
    monkeypatch.setattr(loader, "WINDOW_ROWS", 50)


def start(path: Path, config: TrainConfig, dataset: Dataset) -> Run:
    return runner.create(path, "custom", config, dataset)


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.metrics() if row["event"] == "train"]


def by_hand(split: Split, rows: list[int]) -> Batch:
    """Return rows of a split as a batch, id by id."""
    assert split.offsets is not None
    bags = unpacked(Bags(split.ids, split.offsets), 3)
    ids, offsets = [], [0]
    for row in rows:
        for bag in bags[row]:
            ids += bag
            offsets.append(len(ids))
    return Batch(
        torch.tensor([split.dense[row].tolist() for row in rows]),
        torch.tensor(ids),
        torch.tensor([float(split.labels[row]) for row in rows]),
        torch.tensor(offsets),
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_on_bags_as_on_batches_made_by_hand(name, dataset, tmp_path):
    config = config_of(name, max_steps=3)
    run = start(tmp_path / "run", config, dataset)
    fit(config, dataset, run)

    split = dataset.split("train")
    places = torch.arange(len(split)).numpy()[:, None]
    rows = Loader(Split("train", split.dense, places, split.labels), batch_size=16, shuffle=True)
    rows.seed = config.loader.seed
    torch.manual_seed(config.seed)
    model = config.model.build(dataset.schema, "fp32")
    optimizer = optim.build("rowwise_adagrad", model.parameters(), 0.05)
    expected = []
    for batch, _ in zip(rows.epoch(0), range(3), strict=False):
        hand = by_hand(split, batch.ids[:, 0].tolist())
        loss = bce(model(hand), hand.labels)
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
        """Wants to stop once it was asked half so often, once a step."""

        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 2
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
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory) -> Path:
    config = config_of("dlrm", epochs=2)
    path = tmp_path_factory.mktemp("run") / "run"
    runner.complete(path, "custom", config, dataset, title="training")
    return path


def test_commands_read_runs_on_bags(finished, dataset):
    result = evaluate(finished, by="user", user="item", intervals=False)
    assert result.metrics["samples"] == 40
    assert sum(segment["samples"] for segment in result.segments) == 40
    whole, again = evaluate(finished, intervals=False), Run.open(finished).evaluation("test")
    assert again is not None
    assert whole.metrics["log_loss"] == again["metrics"]["log_loss"]
    with pytest.raises(ConfigError, match=r'"tags" holds bags of ids.* of: user, item, price'):
        evaluate(finished, by="tags")
    with pytest.raises(ConfigError, match=r'"tags" holds bags of ids'):
        evaluate(finished, user="tags")
    made = describe(dataset.path, verify=True)
    assert [(each.name, each.kind) for each in made.features][3] == ("tags", "list")
    smaller = compress(finished)
    assert {"fp32", "int8"} <= {each.name for each in smaller.found.candidates}


def test_the_report_draws_bags(finished):
    pytest.importorskip("matplotlib")
    page = report(finished).report.read_text()
    assert re.search(r"<th[^>]*>tags</th><td>list</td>", page)


def test_trees_say_that_they_take_no_bags(dataset, tmp_path):
    pytest.importorskip("lightgbm")
    config = replace(config_of("lr"), data=str(dataset.path))
    with pytest.raises(ConfigError, match="trees take one value a feature, but tags holds bags"):
        compare(config, models=["trees"], seeds=1, rates=(1.0,), run=tmp_path / "compared")
