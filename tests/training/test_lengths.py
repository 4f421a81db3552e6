"""Runs of any length end well: one row, one batch, one step, stopped at once."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset
from dlrm.errors import DatasetError
from dlrm.files import passing
from dlrm.models.lr import LRConfig
from dlrm.training.config import EvalConfig, TrainConfig
from dlrm.training.load import training_stats
from dlrm.training.trainer import Trainer

ROWS = (2, 3, 9, 40)
"""Of which seven tenths are trained on; of two rows one, whose label is a number."""


def table(rows: int, clicks: list[int] | None = None) -> pl.DataFrame:
    values = np.arange(rows) % 2 if clicks is None else np.isin(np.arange(rows), clicks)
    return pl.DataFrame({"p": np.arange(rows) * 1.7, "y": values.astype(int)})


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Dataset]:
    folder = tmp_path_factory.mktemp("tables")
    config = PrepareConfig(label=("y",), split="chronological", fractions=(0.7, 0.3, 0.0))
    prepared = {}
    for rows in ROWS:
        shown = replace(config, task="regression") if rows == 2 else config
        source = FrameSource(table(rows))
        prepared[rows] = prepare(source, folder / str(rows), shown, quiet=True).dataset
    return prepared


@settings(max_examples=10, deadline=None)
@given(
    rows=st.sampled_from(ROWS),
    batch_size=st.sampled_from([1, 4, 64]),
    max_steps=st.sampled_from([0, 1, 3]),
    every=st.sampled_from([0, 1, 5]),
    patience=st.sampled_from([0, 1]),
    log_every=st.sampled_from([1, 100]),
    ensemble=st.sampled_from([1, 2]),
)
def test_a_run_of_any_length_ends_in_scores(
    datasets, rows, batch_size, max_steps, every, patience, log_every, ensemble
):
    config = TrainConfig(
        model=LRConfig(),
        loader=LoaderConfig(batch_size=batch_size),
        eval=EvalConfig(every=every, patience=patience),
        max_steps=max_steps,
        log_every=log_every,
        ensemble=ensemble,
        epochs=2,
    )
    with TemporaryDirectory() as folder, passing():
        path = Path(folder) / "run"
        run, evaluations = Trainer.complete(path, "custom", config, datasets[rows], title="")
        stats = training_stats(run)
        assert stats.step >= ensemble
        assert stats.samples >= stats.step
        assert stats.samples_per_s > 0
        assert evaluations.keys() == {"validation"}
        # There is nothing left to do, and it says the same.
        assert Trainer.complete(path, "custom", config, datasets[rows], title="")[1] == evaluations


@pytest.mark.parametrize("clicks", [[], [15]])
def test_training_rows_of_one_class_are_refused(tmp_path, clicks):
    frame = table(20, clicks)
    if not clicks:
        frame = frame.with_columns(y=pl.Series([0] * 16 + [1] * 4))
    config = PrepareConfig(label=("y",), split="chronological", fractions=(0.7, 0.3, 0.0))
    dataset = prepare(FrameSource(frame), tmp_path / "data", config, quiet=True).dataset
    with pytest.raises(DatasetError, match="y is 0 in all 14 training rows"):
        Trainer.create(tmp_path / "run", "custom", TrainConfig(model=LRConfig()), dataset)
    assert not (tmp_path / "run").exists()


def test_rows_that_weigh_nothing_are_no_second_class(tmp_path):
    frame = table(20, [3, 15]).with_columns(
        w=pl.Series([0.0 if k == 3 else 1.0 for k in range(20)])
    )
    config = PrepareConfig(
        label=("y",), weight="w", split="chronological", fractions=(0.7, 0.3, 0.0)
    )
    dataset = prepare(FrameSource(frame), tmp_path / "data", config, quiet=True).dataset
    with pytest.raises(DatasetError, match="y is 0 in all 13 training rows"):
        Trainer.create(tmp_path / "run", "custom", TrainConfig(model=LRConfig()), dataset)


def test_held_out_rows_of_one_class_have_no_auc(datasets, tmp_path):
    config = TrainConfig(model=LRConfig(), eval=EvalConfig(metric="auc"), epochs=3)
    assert len(datasets[3].split("validation")) == 1
    _, evaluations = Trainer.complete(tmp_path / "run", "custom", config, datasets[3], title="")
    assert evaluations["validation"]["metrics"]["auc"] is None
    assert evaluations["validation"]["metrics"]["log_loss"] > 0
