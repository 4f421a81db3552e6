"""A step measured: its parts add up, what is measured is what was asked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

from bench.machines import machine
from dlrm.bench import batches, calibrate, step
from dlrm.bench.arch import ARCHS
from dlrm.bench.batches import random_batch, rotation
from dlrm.bench.subject import Subject
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.planning.stages import Clock
from dlrm.planning.what_if import WhatIf
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig
from dlrm.training.step import TrainStep

CONFIG = TrainConfig(model=DLRMConfig(dim=4, bottom=(8,), top=(8,)), precision="fp32")
SUBJECT = Subject(
    name="small", config=CONFIG, schema=replace(ARCHS["figure6"], num_embeddings=(30, 4, 1)).schema
)


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 10_000)
    monkeypatch.setattr(step, "ROUND_S", 0.0)


def measured(of: Subject, sizes: list[int], *, train: bool) -> list[dict[str, Any]]:
    ticks: list[int] = []
    found = list(
        step.measure(of, sizes, machine(), train=train, rounds=3, tick=lambda: ticks.append(1))
    )
    assert len(ticks) == 3 * len(sizes)
    return [row for row, _ in found]


@pytest.mark.parametrize("train", [True, False])
def test_the_operators_of_a_step_add_up_to_it(train: bool) -> None:
    for row, size in zip(measured(SUBJECT, [8, 32], train=train), (8, 32), strict=True):
        assert row["batch_size"] == size
        assert sum(o["ms"] for o in row["operators"]) == pytest.approx(row["step_ms"])
        assert sum(o["share"] for o in row["operators"]) == pytest.approx(1.0)
        for operator in row["operators"]:
            assert sum(operator["terms"].values()) == pytest.approx(operator["ms"])
            assert operator["forward_ms"] + operator["backward_ms"] == pytest.approx(operator["ms"])
            assert operator["flops"] >= 0
            assert operator["bytes"] >= 0
        assert WhatIf().step_ms(row) == pytest.approx(row["step_ms"])
        forward = ["lookup", "bottom MLP", "interaction", "top MLP"]
        training = ["loss", "dense update", "update"] if train else []
        assert [o["name"] for o in row["operators"]] == [*forward, *training, "other"]
        # Watched, all of them have taken time; what watching misses is beside them.
        assert all(o["ms"] > 0 for o in row["operators"][:-1])
        back = [o["name"] for o in row["operators"][:-1] if o["backward_ms"] > 0]
        assert back == ([*forward[1:], *training] if train else [])
        assert row["step_low"] <= row["step_ms"] <= row["step_high"]
        assert row["predicted_ms"] > 0
        assert row["model_error"] == 0.1
        assert row["verdict"].startswith(f"A step of {size} takes")
        json.dumps(row, allow_nan=False)


def test_scoring_leaves_no_gradients_and_changes_nothing() -> None:
    before = [p.clone() for p in SUBJECT.build().net.parameters()]
    measured(SUBJECT, [8], train=False)
    torch.manual_seed(0)
    again = SUBJECT.build().net.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))


def test_data_are_measured_with_their_own_rows(clicks: Dataset) -> None:
    of = Subject(name="clicks", config=CONFIG, schema=clicks.schema, dataset=clicks)
    for batch in of.batches(100):
        assert len(batch) == 100
    (found,) = measured(of, [100], train=True)
    assert found["batch_size"] == 100
    with pytest.raises(ConfigError, match=r"batch is 5,000, but .* has 2,400 training rows"):
        of.batches(5000)


def test_what_does_not_fit_is_refused_before_it_is_allocated() -> None:
    huge = replace(SUBJECT, schema=replace(ARCHS["figure6"], num_embeddings=(10**12,)).schema)
    with pytest.raises(ConfigError) as error:
        list(step.measure(huge, [8], machine(), train=True, rounds=2, tick=lambda: None))
    assert "small at batch 8 needs 16.0 TB" in str(error.value)
    assert "are free; --rows-scale 0.1 takes a tenth" in str(error.value)
    with pytest.raises(ConfigError, match="of activations"):
        SUBJECT.check(10**9, train=True)
    SUBJECT.check(1000, train=True)


def test_bags_have_as_many_ids_as_they_should() -> None:
    rng = np.random.default_rng(0)
    schema = Schema.one_hot(2, (30, 7), kind="bag")
    batch = random_batch(schema, 100, "uniform", rng, pooling=5)
    assert batch.lists is not None
    assert batch.lists.lengths.tolist() == [5] * 200
    ids = batch.lists.values.view(100, 2, 5)
    assert ids[:, 0].max() >= 7
    assert ids[:, 1].max() < 7
    varied = random_batch(schema, 400, "zipf", rng, pooling=5, varied=True).lists
    assert varied is not None
    lengths = varied.lengths
    assert set(lengths.tolist()) == {1, 2, 3, 4, 5}
    assert len(varied.values) == lengths.sum()
    for batch in rotation(schema, 16, "uniform", pooling=3):
        assert batch.dense.shape == (16, 2)
        assert batch.lists is not None
        assert batch.lists.values.shape == (96,)


def test_the_mean_of_varied_bags_is_what_the_model_counts_with() -> None:
    schema = Schema.one_hot(0, (1000,), kind="bag")
    of = replace(SUBJECT, schema=schema, pooling=100, varied=True)
    assert of.shape(8).pooling == 50.5
    rng = np.random.default_rng(0)
    batch = random_batch(schema, 4000, "uniform", rng, pooling=100, varied=True)
    assert batch.lists is not None
    assert len(batch.lists.values) / 4000 == pytest.approx(50.5, rel=0.05)
    # Of one-hot features there is one, whatever lists have.
    assert replace(of, schema=SUBJECT.schema).shape(8).pooling == 1


def test_a_clock_says_the_median_of_each_stage() -> None:
    clock = Clock()
    for seconds in ((1.0, 5.0), (3.0, 5.0), (2.0, 5.0)):
        clock.laps.append(dict(zip((("a", "forward"), ("b", "forward")), seconds, strict=True)))
    assert clock.medians == {("a", "forward"): 2.0, ("b", "forward"): 5.0}
    clock = Clock()
    clock.enter("a", "forward")
    clock.leave("a", "forward")
    clock.enter("a", "forward")
    clock.leave("a", "forward")
    clock.lap()
    clock.lap()
    assert set(clock.laps[0]) == {("a", "forward")}
    assert clock.laps[1] == {}


def test_the_cost_model_is_fitted_to_steps_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibrate, "EACH_S", 0.0)
    monkeypatch.setattr(calibrate, "MOST_FLOPS", 1e7)
    models = calibrate.trials(10, tables_bytes=1 << 22)
    assert models == calibrate.trials(10, tables_bytes=1 << 22)
    assert all(4 * m.arch.model.dim * m.arch.rows_total <= 1 << 22 for m in models)
    ticks: list[int] = []
    steps = calibrate.measure(models, lambda: ticks.append(1))
    assert len(ticks) == len(steps) == 10
    for each in steps:
        assert sum(m.seconds for m in each.operators) >= each.seconds * 0.999
    found = calibrate.fit(steps, machine().ceilings)
    assert found.steps == 10
    assert 0 <= found.error <= found.worst


def test_tables_of_trials_share_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = calibrate.train_step

    def train_step(
        config: TrainConfig, schema: Schema, model: DLRM, optimizer: Optimizer
    ) -> TrainStep:
        taken.append(model.embeddings.get_parameter("weight").data_ptr())
        return real(config, schema, model, optimizer)

    monkeypatch.setattr(calibrate, "train_step", train_step)
    monkeypatch.setattr(calibrate, "EACH_S", 0.0)
    monkeypatch.setattr(calibrate, "MOST_FLOPS", 1e7)
    calibrate.measure(calibrate.trials(3, 1, 1 << 20), lambda: None)
    assert len(taken) == 3
    assert len(set(taken)) == 1


def test_rows_go_to_files_as_json(tmp_path: Path) -> None:
    (found,) = measured(SUBJECT, [8], train=True)
    change = WhatIf(flops=2.0).applied(found)
    assert change["gain"] >= 1.0
    assert change["change"] == {"flops": 2.0}
    (tmp_path / "row.json").write_text(json.dumps(change, allow_nan=False))
