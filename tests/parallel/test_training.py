"""Runs of several processes: what they reach, and how any number of them goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from dlrm.data.features import toml
from dlrm.data.features.columns import Column, Columns
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset
from dlrm.errors import CheckpointError, Interrupted
from dlrm.models import DeepFMConfig, DLRMConfig
from dlrm.nn.tables import TablesConfig
from dlrm.ops.choice import choices
from dlrm.optim import OPTIMIZERS
from dlrm.optim.config import OptimConfig
from dlrm.parallel.config import ParallelConfig
from dlrm.parallel.world import World
from dlrm.run import Run
from dlrm.training import interrupt, loop
from dlrm.training.average import AverageConfig
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig
from dlrm.training.evaluate import measured, predict_split
from dlrm.training.load import load_model
from dlrm.training.trainer import Trainer

from .ranks import Ranks

SMALL = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,), tables=TablesConfig(init_std=0.1)),
    optim=OptimConfig(name="rowwise_adagrad", lr=0.05),
    # 2,400 rows: the last batch of an epoch has 14.
    loader=LoaderConfig(batch_size=106, seed=3),
    eval=EvalConfig(every=7, splits=("validation", "test"), batch_size=50),
    checkpoint=CheckpointConfig(every=5, keep=20),
    max_steps=30,
    epochs=2,
    log_every=1,
    seed=4,
    precision="fp32",
)


COLUMNS = Columns(
    columns=(
        Column(name="price", kind="number"),
        Column(name="user", kind="category"),
        Column(name="tags", kind="list"),
        Column(name="item", kind="category"),
        Column(name="history", kind="sequence", table="item", max_length=5),
    ),
    labels=("click", "sale"),
    weight="importance",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Lists beside single ids, a table that two features share, two labels, weights."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    user = rng.integers(0, 30, 900)
    clicks = rng.random(900) < np.where(user % 2 == 0, 0.8, 0.2)
    items = [f"item {number}" for number in range(50)]
    frame = pl.DataFrame(
        {
            "price": rng.random(900),
            "user": [f"user {number}" for number in user],
            "tags": [rng.choice(list("abcdefghijk"), rng.integers(0, 4)).tolist() for _ in user],
            "item": rng.choice(items, 900),
            "history": [rng.choice(items, rng.integers(0, 8)).tolist() for _ in user],
            "click": clicks.astype(np.int64),
            "sale": (clicks & (rng.random(900) < 0.5)).astype(np.int64),
            "importance": rng.random(900) + 0.5,
        }
    )
    (folder / "schema.toml").write_text(toml.dumps(COLUMNS))
    config = PrepareConfig(schema=str(folder / "schema.toml"), split="chronological")
    return prepare(FrameSource(frame), folder / "dataset", config, quiet=True).dataset


Alone = Callable[[TrainConfig, Dataset], Run]


def stop_after(steps: int) -> type[interrupt.Interrupt]:
    class Stop(interrupt.Interrupt):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return self.asked > steps

    return Stop


def train(
    world: World, config: TrainConfig, data: Path, path: Path, resume: bool, stop: int, who: int
) -> str:
    """Train into `path`; rank `who` is asked to stop after so many steps, if any."""
    dataset = Dataset.open(data)
    if resume:
        trainer = Trainer(
            config, dataset, Run.open(path, silent=not world.first), world, again=True
        )
    else:
        trainer = Trainer.create(path, "custom", config, dataset, world=world)
    before = loop.Interrupt
    try:
        if stop and world.rank == who:
            loop.Interrupt = stop_after(stop)
        trainer.evaluate(trainer.fit())
    except Interrupted as stopped:
        return str(stopped)
    finally:
        loop.Interrupt = before
    return "finished"


def run_on(
    ranks: Ranks,
    world: int,
    config: TrainConfig,
    data: Dataset,
    path: Path,
    *,
    resume: bool = False,
    stop: int = 0,
    who: int = 0,
) -> Run:
    said = ranks.run(train, config, data.path, path, resume, stop, who, world=world)
    assert all(("stopped" if stop else "finished") in each for each in said)
    return Run.open(path)


@pytest.fixture(scope="module")
def alone(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What one process makes of a config, of which each is trained once."""
    runs: dict[tuple[str, Path], Run] = {}

    def run(config: TrainConfig, data: Dataset) -> Run:
        # One process has nothing to shard.
        config = replace(config, parallel=ParallelConfig())
        key = repr(config), data.path
        if key not in runs:
            runs[key] = run_on(ranks, 1, config, data, tmp_path_factory.mktemp("alone") / "run")
        return runs[key]

    return run


def rows(run: Run, *events: str) -> list[dict[str, Any]]:
    timed = ("elapsed_s", "samples_per_s", "loading_share")
    return [
        {key: value for key, value in row.items() if key not in timed}
        for row in run.metrics()
        if row["event"] in events
    ]


def files(run: Run, step: int) -> dict[str, torch.Tensor]:
    folder = run.path / "checkpoints" / f"step-{step:09d}"
    found = {}
    for name in ("model", "optimizer", "average"):
        if (folder / f"{name}.safetensors").exists():
            found |= {
                f"{name} {k}": v for k, v in load_file(folder / f"{name}.safetensors").items()
            }
    return found


def near(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], apart: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        torch.testing.assert_close(
            tensor.float(), theirs[name].float(), rtol=apart, atol=apart, msg=name
        )


@pytest.mark.parametrize("sharding", ["auto", "row", "column"])
@pytest.mark.parametrize("optim", sorted(OPTIMIZERS))
def test_losses_metrics_and_checkpoints_are_those_of_one_process(
    ranks: Ranks, alone: Alone, clicks, tmp_path, optim, sharding
):
    config = replace(
        SMALL,
        optim=OptimConfig(name=optim, lr=0.01),
        parallel=ParallelConfig(sharding=sharding),
        average=AverageConfig(share=0.3, every=2),
        max_steps=20,
    )
    one = alone(config, clicks)
    many = run_on(ranks, 3, config, clicks, tmp_path / "many")
    for ours, theirs in zip(rows(one, "train"), rows(many, "train"), strict=True):
        assert theirs == {**ours, "loss": pytest.approx(ours["loss"], abs=1e-6)}
    for ours, theirs in zip(rows(one, "eval"), rows(many, "eval"), strict=True):
        # An AUC counts pairs: rounding may turn one that is a tie.
        assert theirs == {
            key: pytest.approx(value, abs=1e-4) if isinstance(value, float) else value
            for key, value in ours.items()
        }
    near(files(one, 20), files(many, 20), 2e-4)
    assert many.evaluation("test") is not None


@pytest.mark.parametrize("sharding", ["auto", "row", "column"])
def test_lists_shared_tables_labels_and_weights_are_learnt_as_by_one_process(
    ranks: Ranks, alone: Alone, shop, tmp_path, sharding
):
    config = replace(
        SMALL,
        loader=replace(SMALL.loader, batch_size=46),
        parallel=ParallelConfig(sharding=sharding),
        max_steps=24,
    )
    one = alone(config, shop)
    many = run_on(ranks, 3, config, shop, tmp_path / "many")
    for ours, theirs in zip(rows(one, "train"), rows(many, "train"), strict=True):
        assert theirs == {**ours, "loss": pytest.approx(ours["loss"], abs=1e-6)}
    near(files(one, 24), files(many, 24), 2e-4)
    ours, theirs = one.evaluation("test"), many.evaluation("test")
    assert ours is not None
    assert theirs is not None
    assert set(theirs["labels"]) == {"click", "sale"}
    for label in theirs["labels"]:
        mine, other = (each["labels"][label]["metrics"]["log_loss"] for each in (ours, theirs))
        assert other == pytest.approx(mine, abs=1e-4)


def handed_on(
    ranks: Ranks, config: TrainConfig, data: Dataset, path: Path, *worlds: int, each: int
) -> Run:
    """Train on some processes after others, the last to the end and those before `each` steps."""
    for number, world in enumerate(worlds):
        last = number == len(worlds) - 1
        run_on(
            ranks, world, config, data, path,
            resume=number > 0, stop=0 if last else each, who=world - 1,
        )  # fmt: skip
    return Run.open(path)


@pytest.mark.parametrize("sharding", ["row", "column"])
def test_any_number_of_processes_goes_on_with_an_optimizer_of_ones_own(
    ranks: Ranks, alone: Alone, shop, tmp_path, sharding
):
    config = replace(
        SMALL,
        loader=replace(SMALL.loader, batch_size=46),
        optim=OptimConfig(name="sign_sgd:SignSGD", lr=0.01),
        parallel=ParallelConfig(sharding=sharding),
        max_steps=24,
    )
    whole = alone(config, shop)
    parted = handed_on(ranks, config, shop, tmp_path / "parted", 1, 2, 3, 1, each=6)
    for ours, theirs in zip(rows(whole, "train"), rows(parted, "train"), strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
    near(files(whole, 24), files(parted, 24), 1e-3)


@pytest.mark.parametrize("storage", ["bf16", "split"])
def test_any_number_of_processes_goes_on(ranks: Ranks, alone: Alone, clicks, tmp_path, storage):
    tables = TablesConfig(init_std=0.1, storage=storage)
    config = replace(
        SMALL, model=replace(SMALL.model, tables=tables), optim=OptimConfig(name="adam", lr=0.01)
    )
    ours = rows(alone(config, clicks), "train")
    parted = handed_on(ranks, config, clicks, tmp_path / "parted", 1, 2, 3, 1, each=7)
    theirs = rows(parted, "train")
    apart = 1e-5 if storage == "split" else 0.02
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], abs=apart)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_resumed_run_equals_one_that_never_stopped(ranks: Ranks, clicks, tmp_path, dropout):
    config = replace(SMALL, model=replace(SMALL.model, dropout=dropout))
    whole = run_on(ranks, 2, config, clicks, tmp_path / "whole")
    parted = tmp_path / "parted"
    run_on(ranks, 2, config, clicks, parted, stop=12, who=1)
    halved = run_on(ranks, 2, config, clicks, parted, resume=True)
    assert rows(whole, "train", "eval", "best") == rows(halved, "train", "eval", "best")
    ours, theirs = files(whole, 30), files(halved, 30)
    assert all(theirs[name].equal(tensor) for name, tensor in ours.items())


def test_what_many_have_trained_one_loads(ranks: Ranks, clicks, tmp_path):
    model = DeepFMConfig(dim=4, deep=(8,))
    run = run_on(ranks, 4, replace(SMALL, model=model), clicks, tmp_path / "run")
    predictions = predict_split(load_model(run), clicks.split("test"), 50)
    evaluation = run.evaluation("test")
    assert evaluation is not None
    log_loss = measured(predictions, clicks.schema).mean("log_loss")
    assert log_loss == pytest.approx(evaluation["metrics"]["log_loss"], abs=1e-6)


def test_ensembles_and_early_stops_work_on_many(ranks: Ranks, clicks, tmp_path):
    config = replace(SMALL, ensemble=2, eval=replace(SMALL.eval, patience=1), max_steps=20)
    run = run_on(ranks, 2, config, clicks, tmp_path / "run")
    evaluation = run.evaluation("test")
    assert evaluation is not None
    assert len(evaluation["members"]) == 2


def _damaged(world: World, config: TrainConfig, data: Path, path: Path) -> str:
    run = Run.open(path, silent=not world.first)
    with pytest.raises(CheckpointError) as raised:
        Trainer(config, Dataset.open(data), run, again=True, world=world).fit()
    return str(raised.value)


def test_a_damaged_checkpoint_is_an_error_everywhere(ranks: Ranks, clicks, tmp_path):
    run = run_on(ranks, 2, SMALL, clicks, tmp_path / "run", stop=12)
    newest = max((run.path / "checkpoints").glob("step-*"))
    file = newest / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    for said in ranks.run(_damaged, SMALL, clicks.path, run.path, world=3):
        assert "is damaged: its checksum differs" in said


@pytest.mark.parametrize("optim", ["sgd", "adagrad", "rowwise_adagrad"])
def test_torchrec_goes_on_from_our_checkpoints_and_we_from_its(
    ranks: Ranks, alone: Alone, clicks, tmp_path, optim
):
    pytest.importorskip("torchrec", reason="needs the extra torchrec")
    config = replace(SMALL, optim=OptimConfig(name=optim, lr=0.01), max_steps=24)
    theirs = replace(config, engine="torchrec", parallel=ParallelConfig(sharding="table"))
    whole = alone(config, clicks)
    parted = tmp_path / "parted"
    run_on(ranks, 2, theirs, clicks, parted, stop=7)
    run_on(ranks, 3, config, clicks, parted, resume=True, stop=6)
    mixed = run_on(ranks, 2, theirs, clicks, parted, resume=True)
    for ours, other in zip(rows(whole, "train"), rows(mixed, "train"), strict=True):
        assert other["loss"] == pytest.approx(ours["loss"], abs=1e-6)
    near(files(whole, 24), files(mixed, 24), 2e-4)
    assert not any("torchrec" in type(each).__module__ for each in load_model(mixed).modules())


def first_chooses(world: World) -> dict[str, str]:
    """Begin to train on ranks that would choose otherwise; return the choices of this one."""
    choices.repeat({"sum": f"rank {world.rank}"})
    choices.repeat_only(world.broadcast_object(choices.used()))
    return choices.used()


def test_all_processes_compute_by_the_products_of_the_first(ranks: Ranks):
    first, *others = ranks.run(first_chooses, world=3)
    assert first["sum"] == "rank 0"
    assert all(other == first for other in others)
