"""Gradient-boosted trees on the rows a model sees: the rival that a deep model has to beat.

The one file that knows LightGBM (extra `trees`). In comparisons its settings are its own defaults
but for more trees of 63 leaves, which stop growing in number when the validation rows no longer
gain; beside a single run they are its defaults.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dlrm import terminal
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, MissingExtraError
from dlrm.metrics import Metrics
from dlrm.schema import Schema

FEW_VALUES = 256
"""Tables of at most so many rows are categories to the trees; the ids of larger ones are numbers,
because a split over many categories fits noise."""
MOST_TREES = 1000
PATIENCE = 30
"""Trees without a gain on the validation rows after which none are added."""
MOST_ROWS = 2_000_000
"""Training rows up to which trees of default settings stand beside a run."""
DEFAULT_TREES = 100
"""LightGBM's own number of trees."""
_TUNED = {
    "num_leaves": 63,
    "learning_rate": 0.05,
    "min_data_per_group": 50,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
}


def default_trees(dataset: Dataset, seed: int) -> dict[str, Metrics] | None:
    """Return what `fit_trees` does with LightGBM's defaults; None where that is not to be had.

    That is without LightGBM, with lists of ids, or with more than `MOST_ROWS` training rows.
    """
    if dataset.schema.list_features or len(dataset.split("train")) > MOST_ROWS:
        return None
    try:
        return fit_trees(dataset, seed, tuned=False, title="LightGBM")
    except MissingExtraError:
        return None


def fit_trees(
    dataset: Dataset, seed: int, *, tuned: bool = True, title: str = "trees"
) -> dict[str, Metrics]:
    """Train LightGBM on the training split, on each label alone, and predict the others.

    Args:
        dataset: With one id per categorical feature.
        seed: Seed of the rows and features that each tree sees.
        tuned: Whether validation chooses the number of trees; otherwise LightGBM's defaults.
        title: Title of the progress bar.

    Returns:
        By split that has rows: logits, or predicted numbers, and labels.

    Raises:
        MissingExtraError: LightGBM is not installed.
        ConfigError: The dataset has features that hold lists of ids.

    """
    try:
        import lightgbm  # noqa: F401 - asked for before anything else
    except ImportError as error:
        raise MissingExtraError("the comparison with trees", "trees") from error
    schema = dataset.schema
    if lists := schema.list_features:
        raise ConfigError(f"trees take one value a feature, but {lists[0].name} holds lists of ids")
    splits = {name: dataset.split(name) for name in ("train", "validation", "test")}
    tables = {name: _table(split) for name, split in splits.items()}
    most = MOST_TREES if tuned else DEFAULT_TREES
    with terminal.progress() as bar:
        task = bar.add_task(title, total=most * schema.num_labels)
        boosters = []
        for label in range(schema.num_labels):
            grown = _fit(
                *(splits, tables, schema, label, seed),
                tuned=tuned,
                advance=lambda _: bar.advance(task),
            )
            boosters.append(grown)
            bar.update(task, completed=most * (label + 1))
    predicted = {}
    for name, split in splits.items():
        if name == "train" or not len(split):
            continue
        logits = [booster.predict(tables[name], raw_score=True) for booster in boosters]
        predicted[name] = Metrics(schema.num_labels, schema.task)
        predicted[name].update(
            np.stack(logits, axis=1).astype(np.float32),
            np.asarray(split.labels, dtype=np.float32),
            split.weights,
        )
    return predicted


def _fit(
    splits: dict[str, Split],
    tables: dict[str, np.ndarray],
    schema: Schema,
    label: int,
    seed: int,
    *,
    tuned: bool,
    advance: Callable[[Any], None],
) -> Any:
    """Return the trees of one label."""
    import lightgbm

    settings: dict[str, Any] = {
        **(_TUNED if tuned else {}),
        "seed": seed,
        "objective": "binary" if schema.task == "classification" else "regression",
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    dense = len(schema.dense)
    few = [dense + t for t, rows in enumerate(schema.num_embeddings) if rows <= FEW_VALUES]

    def rows_of(name: str, **options: Any) -> Any:
        split = splits[name]
        labels = np.ascontiguousarray(split.labels[:, label])
        return lightgbm.Dataset(tables[name], labels, weight=split.weights, **options)

    train = rows_of("train", categorical_feature=few, params=settings)
    judged = tuned and len(splits["validation"]) > 0
    callbacks: list[Any] = [advance]
    if judged:
        callbacks.append(lightgbm.early_stopping(PATIENCE, verbose=False))
    return lightgbm.train(
        settings,
        train,
        MOST_TREES if judged else MOST_TREES // 4 if tuned else DEFAULT_TREES,
        valid_sets=[rows_of("validation", reference=train)] if judged else None,
        callbacks=callbacks,
    )


def _table(split: Split) -> np.ndarray:
    """Return dense features and ids side by side, (n, N + T); ids below 2^24 are exact."""
    return np.concatenate([split.dense, split.ids.astype(np.float32)], axis=1)
