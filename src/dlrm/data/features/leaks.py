"""Columns that alone predict the label almost perfectly, as what is known before it hardly does."""

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.column import Column
from dlrm.data.features.columns import Columns
from dlrm.data.features.fit import FittingRows
from dlrm.data.vocabulary import distinct

ALMOST = 0.995
"""AUC of a column alone from which it is named."""
_LEAST, _MOST = 100, 20_000
"""Training rows that are looked at; of fewer, a column may be as good by chance."""


def with_leaks(rows: FittingRows, schema: Columns) -> Columns:
    """Return a schema whose reasons name likely leaks."""
    if schema.task != "classification" or len(rows.train) < _LEAST or schema.whole_log:
        return schema
    chosen = np.linspace(0, len(rows.train) - 1, min(len(rows.train), _MOST)).astype(np.intp)
    sample = replace(rows, train=rows.train[chosen], labels=rows.labels[chosen])
    columns = tuple(_named(sample, schema, column) for column in schema.columns)
    return replace(schema, columns=columns)


def _named(rows: FittingRows, schema: Columns, column: Column) -> Column:
    if column.kind not in ("number", "category"):
        return column
    labels = rows.labels.astype(bool)
    if column.kind == "number":
        auc = _auc(rows.numbers(column.name, schema.reading(column)), labels)
    else:
        auc = _auc(_means(rows.texts(column.name), labels), labels)
    auc = max(auc, 1 - auc)
    if auc < ALMOST:
        return column
    warning = (
        f"LIKELY A LEAK: alone it predicts the label with AUC {auc:.4f}; is it known before the "
        'label is? Otherwise set kind = "ignore"'
    )
    return replace(column, why=f"{column.why}; {warning}" if column.why else warning)


def _auc(scores: pl.Series, labels: NDArray[np.bool_]) -> float:
    """Return the AUC of scores (n,), a missing one below all others."""
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    if not pairs:
        return 0.5
    ranks = scores.fill_null(float("-inf")).rank("average").to_numpy()
    return float(ranks[labels].sum() - positives * (positives + 1) / 2) / pairs


def _means(texts: pl.Series, labels: NDArray[np.bool_]) -> pl.Series:
    """Return the share of positives of each row's value (n,) among the other rows."""
    groups, codes = distinct(texts)
    sums = np.bincount(codes, labels, minlength=len(groups))[codes] - labels
    counts = np.bincount(codes, minlength=len(groups))[codes] - 1
    mean = labels.mean()
    # One row at the mean is added, which a value of a single row has.
    return pl.Series((sums + mean) / (counts + 1))
