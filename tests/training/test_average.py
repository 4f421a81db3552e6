"""The mean of the parameters: which steps are in it, and that a run keeps and resumes it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dlrm.data.loader import LoaderConfig
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, Interrupted
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.lr import LRConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training import interrupt
from dlrm.training.average import Average, AverageConfig
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig
from dlrm.training.evaluate import measured, predict_split
from dlrm.training.trainer import Trainer

CONFIG = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
    optim=OptimConfig(name="rowwise_adagrad", lr=0.01),
    average=AverageConfig(share=0.5, every=3),
    loader=LoaderConfig(batch_size=100, seed=3),
    eval=EvalConfig(every=7, metric="log_loss"),
    checkpoint=CheckpointConfig(every=5, keep=99),
    epochs=2,
    log_every=1,
    seed=4,
    precision="fp32",
)


def fit(config: TrainConfig, dataset: Dataset, run: Run, *, resume: bool = False) -> nn.Module:
    return Trainer(config, dataset, run, again=resume).fit().model


def new_run(path: Path, config: TrainConfig, dataset: Dataset) -> Run:
    return Trainer.create(path, "custom", config, dataset).run


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.metrics() if row["event"] == "train"]


def evaluations(run: Run) -> list[tuple]:
    names = ("step", "split", "auc", "log_loss")
    return [tuple(row[name] for name in names) for row in run.metrics() if row["event"] == "eval"]


def _stop_at(calls: int) -> type[interrupt.Interrupt]:
    """Return an Interrupt that wants to stop once it was asked so often."""

    class Stop(interrupt.Interrupt):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 2
            return self.asked > calls

    return Stop


@pytest.mark.parametrize(
    ("share", "every", "counted"),
    [(0, 1, []), (0.3, 1, [8, 9, 10]), (0.5, 2, [6, 8, 10]), (1, 4, [2, 6, 10]), (0.1, 99, [10])],
)
def test_the_mean_is_that_of_the_steps_that_count(share, every, counted):
    model = nn.BatchNorm1d(2)
    average = Average(model, AverageConfig(share=share, every=every), 10)
    for step in range(1, 11):
        with torch.no_grad():
            model.weight.fill_(step**2)
            model.running_var.fill_(step)  # pyright: ignore[reportOptionalMemberAccess]
            model.num_batches_tracked.fill_(step)  # pyright: ignore[reportOptionalMemberAccess]
        average.step(step)
    assert average.count == len(counted)
    with average.applied():
        weight = model.weight.mean().item()
        variance = model.state_dict()["running_var"].mean().item()
        assert model.state_dict()["num_batches_tracked"] == 10
    if counted:
        assert weight == pytest.approx(sum(step**2 for step in counted) / len(counted))
        assert variance == pytest.approx(sum(counted) / len(counted))
    assert torch.equal(model.weight, torch.full((2,), 100.0))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"share": 1.5}, "share"),
        ({"share": -0.1}, "share"),
        ({"every": 0}, "every"),
        ({"decay": 1.0}, "decay"),
        ({"decay": 0.9, "share": 0.5}, "decay"),
    ],
)
def test_a_mean_without_meaning_is_refused(settings, named):
    with pytest.raises(ConfigError, match=f"average.{named}"):
        AverageConfig(**settings)


def test_an_exponential_mean_counts_every_step_and_grows_slow_with_them():
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, AverageConfig(decay=0.6, every=2), 1000)
    expected = None
    for step in range(1, 31):
        nn.init.constant_(model.weight, step**2)
        average.step(step)
        if step % 2 == 0:
            kept = 0.0 if expected is None else min(0.6, (step / 2 - 1) / (step / 2 + 8))
            expected = kept * (expected or 0.0) + (1 - kept) * step**2
            assert average.mean["weight"].item() == pytest.approx(expected)


def test_a_mean_is_kept_where_either_asks_for_it():
    means = (AverageConfig(), AverageConfig(share=0.5), AverageConfig(decay=0.9))
    assert [mean.enabled for mean in means] == [False, True, True]


def test_large_models_are_averaged_more_rarely(monkeypatch):
    monkeypatch.setattr("dlrm.training.average.FEW_PARAMETERS", 3)
    average = Average(nn.Linear(7, 1, bias=False), AverageConfig(decay=0.6, every=2), 1200)
    for step in range(1, 13):
        average.step(step)
        assert average.count == step // 6


def test_a_run_keeps_the_mean_and_trains_on_without_it(clicks, tmp_path):
    plain = new_run(tmp_path / "plain", replace(CONFIG, average=AverageConfig()), clicks)
    fit(replace(CONFIG, average=AverageConfig()), clicks, plain)
    run = new_run(tmp_path / "run", CONFIG, clicks)
    model = fit(CONFIG, clicks, run)
    assert losses(run) == losses(plain)
    # Half of 48 steps are averaged: until then evaluations are those of the parameters.
    before, after = ([row for row in evaluations(each) if row[0] <= 24] for each in (run, plain))
    assert before == after
    held = [row for row in evaluations(run) if row[1] == "validation"]
    assert held[-1] != [row for row in evaluations(plain) if row[1] == "validation"][-1]
    # What is loaded is what was measured.
    best = min(held, key=lambda row: row[3])
    assert best[0] > 24
    again = predict_split(model, clicks.split("validation"), 100)
    assert measured(again, clicks.schema).mean("log_loss") == best[3]


def test_the_last_mean_is_that_of_the_checkpoints(clicks, tmp_path):
    config = replace(
        CONFIG,
        average=AverageConfig(share=0.5, every=4),
        checkpoint=CheckpointConfig(every=4, keep=99),
    )
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    folder = run.path / "checkpoints"
    steps = [load_file(folder / f"step-{s:09d}" / "model.safetensors") for s in range(28, 49, 4)]
    mean = load_file(folder / "step-000000048" / "average.safetensors")
    assert not (folder / "step-000000024" / "average.safetensors").exists()
    for name, found in mean.items():
        expected = torch.stack([step[name] for step in steps]).mean(dim=0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("storage", "stop", "decay"),
    [("fp32", 5, 0), ("split", 60, 0), ("fp32", 75, 0), ("fp32", 60, 0.9)],
)
def test_a_resumed_mean_equals_one_that_never_stopped(clicks, tmp_path, stop, storage, decay):
    tables = TablesConfig(storage=storage)
    config = replace(CONFIG, model=replace(CONFIG.model, tables=tables))
    if decay:
        config = replace(config, average=AverageConfig(decay=decay, every=3))
    whole = new_run(tmp_path / "whole", config, clicks)
    straight = fit(config, clicks, whole)
    halved = new_run(tmp_path / "halved", config, clicks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(stop))
        with pytest.raises(Interrupted):
            fit(config, clicks, halved)
    assert any(halved.path.rglob("average.safetensors")) == (stop > 5)
    resumed = fit(config, clicks, halved, resume=True)
    assert evaluations(halved) == evaluations(whole)
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_constant_rate_gains_by_averaging(clicks, tmp_path):
    config = replace(
        CONFIG,
        model=LRConfig(),
        optim=OptimConfig(name="adam", lr=0.05),
        eval=EvalConfig(every=999, metric="log_loss"),
        epochs=4,
    )
    reached = {}
    for share in (0.0, 0.5):
        run = new_run(tmp_path / str(share), config, clicks)
        fit(replace(config, average=AverageConfig(share=share, every=1)), clicks, run)
        reached[share] = [row[3] for row in evaluations(run) if row[1] == "validation"][-1]
    assert reached[0.5] < reached[0.0]
