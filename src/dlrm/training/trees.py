"""Gradient-boosted trees on the rows a model sees: the rival that a deep model has to beat.

The one file that knows LightGBM (extra `trees`). Its settings are its own defaults but for more
trees of 63 leaves, which stop growing in number when the validation rows no longer gain.
"""

from typing import Any

import numpy as np

from dlrm import terminal
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, MissingExtraError
from dlrm.metrics import Metrics

FEW_VALUES = 256
"""Tables of at most so many rows are categories to the trees; the ids of larger ones are numbers,
because a split over many categories fits noise."""
MOST_TREES = 1000
PATIENCE = 30
"""Trees without a gain on the validation rows after which none are added."""


def fit_trees(dataset: Dataset, seed: int, *, title: str = "trees") -> dict[str, Metrics]:
    """Train LightGBM on the training split, and predict the others.

    Args:
        dataset: With one id per categorical feature.
        seed: Of the rows and features that each tree sees.
        title: Of the progress bar.

    Returns:
        By split that has rows: logits and labels.

    Raises:
        MissingExtraError: LightGBM is not installed.
        ConfigError: The dataset has features that hold bags of ids.

    """
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("the comparison with trees", "trees") from error
    bags = [feature.name for feature in dataset.schema.categorical if feature.multi_hot]
    if bags:
        raise ConfigError(f"trees take one value a feature, but {bags[0]} holds bags of ids")
    splits = {name: dataset.split(name) for name in ("train", "validation", "test")}
    dense = len(dataset.schema.dense)
    few = [dense + t for t, rows in enumerate(dataset.schema.rows) if rows <= FEW_VALUES]
    settings: dict[str, Any] = {
        "objective": "binary",
        "num_leaves": 63,
        "learning_rate": 0.05,
        "min_data_per_group": 50,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.8,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    train = lightgbm.Dataset(
        _table(splits["train"]), splits["train"].labels, categorical_feature=few, params=settings
    )
    judged = splits["validation"] if len(splits["validation"]) else None
    with terminal.progress() as bar:
        task = bar.add_task(title, total=MOST_TREES)
        callbacks: list[Any] = [lambda _: bar.advance(task)]
        if judged is not None:
            callbacks.append(lightgbm.early_stopping(PATIENCE, verbose=False))
        booster = lightgbm.train(
            settings,
            train,
            MOST_TREES if judged is not None else MOST_TREES // 4,
            valid_sets=None
            if judged is None
            else [lightgbm.Dataset(_table(judged), judged.labels, reference=train)],
            callbacks=callbacks,
        )
    predicted = {}
    for name, split in splits.items():
        if name == "train" or not len(split):
            continue
        logits = np.asarray(booster.predict(_table(split), raw_score=True), dtype=np.float32)
        predicted[name] = Metrics()
        predicted[name].update(logits, np.asarray(split.labels, dtype=np.float32))
    return predicted


def _table(split: Split) -> np.ndarray:
    """Return dense features and ids side by side, (n, N + T); ids below 2^24 are exact."""
    return np.concatenate([split.dense, split.ids.astype(np.float32)], axis=1)
