"""A run goes on from another one: what was learned stays, and new values begin as rare ones."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch

from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.errors import ConfigError, RunError
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.lr import LRConfig
from dlrm.models.mf import MFConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training.config import TrainConfig
from dlrm.training.loop import Loop
from dlrm.training.predictor import Predictor
from dlrm.training.trainer import Trainer

PREPARE = PrepareConfig(label=("y",), split="chronological", fractions=(0.8, 0.2, 0.0))
CONFIG = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(4,), top=(4,)),
    optim=OptimConfig(name="adam", lr=0.01),
    loader=LoaderConfig(batch_size=32),
    prepare=PREPARE,
    max_steps=5,
    precision="fp32",
)


def rows(values: range, seed: int = 0, count: int = 200) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    pairs = [[f"c{k}" for k in rng.choice(np.array(values), 2)] for _ in range(count)]
    return pl.DataFrame(
        {
            "city": [f"c{k}" for k in rng.choice(np.array(values), count)],
            "user": [f"u{k}" for k in rng.choice(np.array(values), count)],
            "seen": ["|".join(pair) for pair in pairs],
            "p": rng.random(count).round(3),
            "y": rng.integers(0, 2, count),
        }
    )


def with_many_users(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(user=pl.Series([f"u{k % 20}" for k in range(len(frame))]))


def trained(folder: Path, config: TrainConfig, frame: pl.DataFrame | None = None) -> Run:
    source = FrameSource(rows(range(8)) if frame is None else frame)
    dataset = prepare(source, folder / "old", config.prepare, quiet=True).dataset
    trainer = Trainer.create(folder / "run", "own", config, dataset)
    trainer.fit()
    return trainer.run


def begun(folder: Path, run: Run, config: TrainConfig, frame: pl.DataFrame) -> Loop:
    known = Known(features=Features.load(run.path), grows=True)
    out = folder / "new"
    dataset = prepare(FrameSource(frame), out, config.prepare, known=known, quiet=True).dataset
    config = replace(config, from_run=str(run.path))
    new = Trainer.create(folder / "next", "own", config, dataset).run
    loop = Loop.begin(config, dataset, new)
    loop.fresh()
    return loop


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, optim=OptimConfig(name="rowwise_adagrad", lr=0.1)),
        replace(CONFIG, optim=OptimConfig(name="adagrad", lr=0.1), model=LRConfig()),
        replace(
            CONFIG,
            model=replace(CONFIG.model, tables=TablesConfig(storage="split")),
            optim=OptimConfig(name="adagrad", lr=0.1),
        ),
        replace(CONFIG, model=MFConfig(user="user", item="city")),
    ],
    ids=["adam", "rowwise", "lr", "split", "mf"],
)
def test_the_model_goes_on_where_it_was(tmp_path, config):
    run = trained(tmp_path, config)
    new = rows(range(4, 12), seed=1)
    loop = begun(tmp_path, run, config, new)
    features = Features.load(tmp_path / "next")
    sizes = {table.name: table.num_embeddings for table in features.schema.tables}
    before = {table.name: table.num_embeddings for table in run.schema.tables}
    assert all(sizes[name] > before[name] for name in before)
    now, then = Predictor(loop.built.net, features), Predictor.open(run)
    # What was rare before is known now, and begins as all rare values did.
    for frame in (rows(range(8)), new, rows(range(20, 30))):
        np.testing.assert_allclose(now.scores(frame), then.scores(frame), atol=1e-6)
    states = [
        (parameter, key, value)
        for parameter, state in loop.optimizer.state.items()
        for key, value in state.items()
    ]
    assert any(bool(value.ne(0).any()) for _, key, value in states)


def test_values_keep_their_ids(tmp_path):
    run = trained(tmp_path, CONFIG)
    begun(tmp_path, run, CONFIG, rows(range(4, 12), seed=1))
    before, now = (Features.load(path) for path in (run.path, tmp_path / "next"))
    for name in ("city", "user", "seen"):
        old, new = before.vocabulary(name).frame["value"], now.vocabulary(name).frame["value"]
        assert new[: len(old)].to_list() == old.to_list()
        assert set(new[len(old) :]) <= {f"{k}{n}" for k in "cu" for n in range(8, 12)}


def test_without_new_values_nothing_grows(tmp_path):
    run = trained(tmp_path, CONFIG)
    loop = begun(tmp_path, run, CONFIG, rows(range(8), seed=2))
    assert loop.dataset.schema == run.schema
    assert loop.dataset.manifest["division"] == []


def test_what_cannot_go_on_is_refused(tmp_path):
    run = trained(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="goes on as it is"):
        begun(tmp_path, run, replace(CONFIG, model=LRConfig()), rows(range(8), seed=1))


def compressed(kind: Literal["qr", "hash", "mixed_dim"], threshold: int) -> TrainConfig:
    temperature = 1.0 if kind == "mixed_dim" else 0.3
    tables = TablesConfig(compression=kind, threshold=threshold, temperature=temperature)
    return replace(CONFIG, model=replace(CONFIG.model, tables=tables))


@pytest.mark.parametrize("kind", ["qr", "hash", "mixed_dim"])
def test_compressed_tables_do_not_grow_and_the_error_says_what_to_do(tmp_path, kind):
    config = compressed(kind, 2)
    run = trained(tmp_path, config, with_many_users(rows(range(8))))
    with pytest.raises(RunError, match=rf"{kind} cannot grow\. Train .* hash_rows"):
        begun(tmp_path, run, config, with_many_users(rows(range(4, 200), seed=1)))


@pytest.mark.parametrize("kind", ["qr", "hash", "mixed_dim"])
@pytest.mark.parametrize("grown", [True, False])
def test_beside_compressed_tables_small_ones_may_grow(tmp_path, kind, grown):
    # 9 rows of each table; only the user's is large enough to be compressed.
    config = compressed(kind, 14)
    old = with_many_users(rows(range(8)))
    run = trained(tmp_path, config, old)
    new = with_many_users(rows(range(2, 9) if grown else range(8), seed=1))
    loop = begun(tmp_path, run, config, new)
    now = Predictor(loop.built.net, Features.load(tmp_path / "next"))
    np.testing.assert_allclose(now.scores(old), Predictor.open(run).scores(old), atol=1e-6)
    if grown:
        assert loop.dataset.schema != run.schema


def test_a_run_killed_before_its_first_step_begins_where_it_would_have(tmp_path):
    run = trained(tmp_path, CONFIG)
    loop = begun(tmp_path, run, CONFIG, rows(range(4, 12), seed=1))
    again = Loop.begin(loop.config, loop.dataset, loop.run)
    progress = again.resumed()
    assert progress.step == 0
    assert torch.equal(progress.draws.host.get_state(), loop.draws.host.get_state())
    for (name, tensor), other in zip(
        loop.built.model.state_dict().items(),
        again.built.model.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(tensor, other), name
