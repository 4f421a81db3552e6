"""Which raw columns matter to a model: over many rows, and in one.

Over many rows the values of a column are exchanged among them, and the metrics get worse by what
the model had from it (permutation importance). In one row its value is replaced by those of other
rows, and the score changes by what the value did. All inputs that are made of a column move
together, as they are encoded, so that any model and any features can be explained. Columns that
say the same stand in for each other: each of them then seems to matter less than both do.

Source: Breiman, "Random Forests", Machine Learning 45, 2001; Fisher, Rudin, Dominici, "All Models
are Wrong, but Many are Useful", arXiv 1801.01489.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.raw_columns import RawColumn, raw_columns, rows_of, value_of, with_values_of
from dlrm.data.store import Dataset, Split
from dlrm.json_file import write_sealed
from dlrm.metrics import sigmoid
from dlrm.metrics.auc import placements
from dlrm.metrics.intervals import mean_change, row_losses
from dlrm.parallel.world import World
from dlrm.run import IMPORTANCE, Run
from dlrm.schema import Schema, Task
from dlrm.training.config import TrainConfig
from dlrm.training.evaluate import by_label, predict_split

ROWS, REPEATS, SAMPLES = 20_000, 3, 200
"""Rows that are measured at most, how often each column is exchanged among them, and the rows whose
values take the place of one row's."""
ROWS_AFTER_TRAINING = 10_000
"""Rows that are measured at the end of a training at most, each column exchanged once: a sixth of
what `dlrm explain` computes, whose intervals are narrower."""
FEWEST_ROWS = 1000
"""Where time is short, fewer rows are measured, but not fewer than these."""
LIMIT_S = 10.0
"""Seconds after a training that this may take, about."""

Score = Callable[[Encoded], NDArray[np.float32]]
"""Rows -> their logits (n, K), or the predictions of a regression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much worse the metrics get without each column."""

    rows: int
    """Rows that were measured."""
    repeats: int
    """Times that each column was exchanged among them."""
    labels: dict[str, list[dict[str, Any]]]
    """Label -> its columns, those that matter most first: `column`, and by how much each metric is
    worse with the ends of its 95% interval, as `auc`, `auc_low`, `auc_high`, `log_loss`, ... of
    clicks, `rmse`, ... of numbers; None where undefined."""

    def to_dict(self) -> dict[str, Any]:
        """Return this as JSON-ready values."""
        labels = {name: {"columns": columns} for name, columns in self.labels.items()}
        return {"rows": self.rows, "repeats": self.repeats, **by_label(labels)}


def importance(
    score: Score,
    split: Split,
    features: Features,
    *,
    rows: int = ROWS,
    repeats: int = REPEATS,
    limit_s: float | None = None,
    agree: Callable[[float], float] = lambda seconds: seconds,
    tick: Callable[[], object] = lambda: None,
) -> Importance | None:
    """Measure how much each raw column matters.

    Args:
        score: The model.
        split: Rows that it was not trained on.
        features: What encoded them.
        rows: At most so many of them are taken, at random.
        repeats: How often each column is exchanged among them.
        limit_s: Seconds that this may take about, with fewer rows; None for no limit.
        agree: Makes one number of the seconds that each of several processes took.
        tick: Called after each column.

    Returns:
        None where no row counts, or there is no time for `FEWEST_ROWS`.

    """
    schema, columns = features.schema, raw_columns(features)
    counting = np.arange(len(split)) if split.weights is None else np.flatnonzero(split.weights)
    rng = np.random.default_rng(0)
    chosen = rng.permutation(counting)[:rows]
    if not len(chosen) or not columns:
        return None
    started = perf_counter()
    logits = score(rows_of(split, chosen, schema))
    if limit_s is not None:
        row_s = max(agree(perf_counter() - started), 1e-9) / len(chosen)
        affordable = int(limit_s / row_s / len(columns))
        if affordable < min(FEWEST_ROWS, len(chosen)):
            return None
        repeats = max(1, min(repeats, affordable // FEWEST_ROWS))
        chosen = chosen[: affordable // repeats]
    sample = rows_of(split, chosen, schema)
    measured = _Measured(sample, logits[: len(chosen)], schema)
    by_column: list[list[dict[str, Any]]] = []
    for column in columns:
        orders = [rng.permutation(len(sample)) for _ in range(repeats)]
        exchanged = (with_values_of(sample, column, sample, order) for order in orders)
        worse = measured.worse([score(other) for other in exchanged])
        by_column.append([{"column": column.name, **values} for values in worse])
        tick()
    first = "rmse" if schema.task == "regression" else "auc"
    labels = {
        label: sorted(
            values,
            key=lambda entry: -(entry[first] if entry[first] is not None else entry["log_loss"]),
        )
        for label, values in zip(schema.labels, zip(*by_column, strict=True), strict=True)
    }
    return Importance(rows=len(sample), repeats=repeats, labels=labels)


def keep_importance(
    config: TrainConfig, dataset: Dataset, run: Run, model: nn.Module, world: World
) -> None:
    """Write importance.json of a trained model, where that takes no longer than `LIMIT_S` or so.

    Validation rows are measured, or test rows where there are none.
    """
    named = next((name for name in ("validation", "test") if len(dataset.split(name))), None)
    if named is None:
        return

    def score(rows: Encoded) -> NDArray[np.float32]:
        assert rows.labels is not None
        split = Split(named, rows.dense, rows.ids, rows.labels, rows.lists)
        return predict_split(model, split, config.eval.batch_size, world).arrays()[0]

    measured = importance(
        score,
        dataset.split(named),
        Features.load(run.path),
        rows=ROWS_AFTER_TRAINING,
        repeats=1,
        limit_s=LIMIT_S,
        agree=world.broadcast_object,
    )
    if measured is not None and world.first:
        write_sealed(run.path / IMPORTANCE, {"split": named, **measured.to_dict()})


class _Measured:
    """Rows with the losses and placements that a model gives them."""

    def __init__(self, sample: Encoded, logits: NDArray[np.float32], schema: Schema):
        assert sample.labels is not None
        self._task: Task = schema.task
        self._labels = sample.labels.astype(np.float64)
        self._weights = np.ones(len(sample))
        if sample.weights is not None:
            self._weights = sample.weights.astype(np.float64)
        self._losses, self._placements = self._losses_and_placements(logits)

    def _losses_and_placements(self, logits: NDArray[np.float32]) -> tuple[list[Any], list[Any]]:
        """Return losses (S,) and placements (S,) of each label; None where there are none."""
        pairs = list(zip(logits.T, self._labels.T, strict=True))
        losses = [row_losses(self._task, mine, labels) for mine, labels in pairs]
        if self._task == "regression":
            return losses, [None] * len(pairs)
        return losses, [placements(mine, labels != 0, self._weights) for mine, labels in pairs]

    def worse(self, repeated: list[NDArray[np.float32]]) -> list[dict[str, float | None]]:
        """Return for each label by how much other logits, each (S, K), are worse on average."""
        others = [self._losses_and_placements(logits) for logits in repeated]
        worse = []
        for k, losses in enumerate(self._losses):
            rise = np.mean([parts[k] - losses for parts, _ in others], axis=0)
            loss = mean_change(rise, self._weights)
            if self._task == "regression":
                # The root of the mean, which rises with it.
                squared = np.average(losses, weights=self._weights)
                loss = np.sqrt(np.maximum(squared + loss, 0.0)) - sqrt(squared)
                worse.append(_named("rmse", loss))
                continue
            drop, before = None, self._placements[k]
            if before is not None:
                fallen = np.mean([before - parts[k] for _, parts in others], axis=0)
                drop = mean_change(fallen, self._weights, self._labels[:, k] != 0)
            worse.append(_named("auc", drop) | _named("log_loss", loss))
        return worse


def _named(metric: str, ends: NDArray[np.float64] | None) -> dict[str, float | None]:
    keys = (metric, f"{metric}_low", f"{metric}_high")
    return dict(zip(keys, [None] * 3 if ends is None else ends.tolist(), strict=True))


def row_effects(
    score: Score, row: Encoded, others: Encoded, features: Features
) -> dict[str, dict[str, Any]]:
    """Return what the value of each column did to the score of one row.

    Args:
        score: The model.
        row: A single row.
        others: m rows whose values take the place of its own.
        features: What encoded them.

    Returns:
        Of each label its `score`, a probability or the prediction of a regression, and `columns`,
        those that moved it most first: `column`, its `value` where that is known, `effect`, by how
        much the score lies above its mean with the values of other rows, and the ends `low` and
        `high` between which 90% of these differences are.

    """
    schema, m = features.schema, len(others)
    repeated = rows_of(row, np.zeros(m, np.intp), schema)
    scores = _scores(score(row), schema)[0]
    effects: list[tuple[RawColumn, NDArray[np.float64]]] = []
    for column in raw_columns(features):
        replaced = with_values_of(repeated, column, others, np.arange(m))
        effects.append((column, scores - _scores(score(replaced), schema)))
    return {
        label: {
            "score": float(scores[k]),
            "columns": sorted(
                (
                    {
                        "column": column.name,
                        "value": value_of(features, row, column),
                        "effect": float(off[:, k].mean()),
                        "low": float(np.quantile(off[:, k], 0.05)),
                        "high": float(np.quantile(off[:, k], 0.95)),
                    }
                    for column, off in effects
                ),
                key=lambda entry: -abs(entry["effect"]),
            ),
        }
        for k, label in enumerate(schema.labels)
    }


def _scores(logits: NDArray[np.float32], schema: Schema) -> NDArray[np.float64]:
    return logits.astype(np.float64) if schema.task == "regression" else sigmoid(logits)
