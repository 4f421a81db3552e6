"""A run goes on from another one: what was learned stays, and new values begin as rare ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dlrm.data.applied import Known
from dlrm.data.features.features import Features
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
from dlrm.parallel.world import ALONE
from dlrm.run import Run
from dlrm.training import runner
from dlrm.training.config import TrainConfig
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


def trained(folder: Path, config: TrainConfig) -> Run:
    source = FrameSource(rows(range(8)))
    dataset = prepare(source, folder / "old", config.prepare, quiet=True).dataset
    run = runner.create(folder / "run", "own", config, dataset)
    runner.fit(config, dataset, run)
    return run


def begun(folder: Path, run: Run, config: TrainConfig, frame: pl.DataFrame) -> Trainer:
    known = Known(features=Features.load(run.path), grows=True)
    out = folder / "new"
    dataset = prepare(FrameSource(frame), out, config.prepare, known=known, quiet=True).dataset
    config = replace(config, from_run=str(run.path))
    new = runner.create(folder / "next", "own", config, dataset)
    trainer = Trainer.begin(config, dataset, new, ALONE)
    trainer.fresh()
    return trainer


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
    trainer = begun(tmp_path, run, config, new)
    features = Features.load(tmp_path / "next")
    sizes = {table.name: table.num_embeddings for table in features.schema.tables}
    before = {table.name: table.num_embeddings for table in run.schema.tables}
    assert all(sizes[name] > before[name] for name in before)
    now, then = Predictor(trainer.built.net, features), Predictor.open(run)
    # What was rare before is known now, and begins as all rare values did.
    for frame in (rows(range(8)), new, rows(range(20, 30))):
        np.testing.assert_allclose(now.scores(frame), then.scores(frame), atol=1e-6)
    states = [
        (parameter, key, value)
        for parameter, state in trainer.optimizer.state.items()
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
    trainer = begun(tmp_path, run, CONFIG, rows(range(8), seed=2))
    assert trainer.dataset.schema == run.schema
    assert trainer.dataset.manifest["division"] == []


def test_what_cannot_go_on_is_refused(tmp_path):
    run = trained(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="goes on as it is"):
        begun(tmp_path, run, replace(CONFIG, model=LRConfig()), rows(range(8), seed=1))
    hashed = replace(
        CONFIG, model=replace(CONFIG.model, tables=TablesConfig(compression="qr", threshold=2))
    )
    (tmp_path / "qr").mkdir()
    run = trained(tmp_path / "qr", hashed)
    with pytest.raises(RunError, match="compressed"):
        begun(tmp_path / "qr", run, hashed, rows(range(4, 12), seed=1))
