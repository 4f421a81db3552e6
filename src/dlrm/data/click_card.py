"""How near a synthetic click log is to its source, column by column and pair by pair."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.click_model import Codes, information

BINS = 20
"""Quantiles of a number; most frequent values of a category that are told apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClickCard:
    """Distances between two tables of the same columns, each 0 where they are alike."""

    marginals: dict[str, float]
    """Column -> total variation of its values"""
    pairs: dict[str, float]
    """Two columns, joined by ` x ` -> total variation of their values together"""
    dependence: dict[str, float]
    """Two columns -> difference of how much one says about the other, as a share of its entropy"""
    click_rate: float
    """Difference of the click rates."""

    def to_dict(self) -> dict[str, Any]:
        """Return means, worst cases and all marginals, JSON-ready."""
        worst = max(self.marginals, key=lambda name: self.marginals[name])
        return {
            "marginals": _rounded(self.marginals),
            "marginal_mean": _mean(self.marginals),
            "marginal_worst": [worst, round(self.marginals[worst], 4)],
            "pair_mean": _mean(self.pairs),
            "dependence_mean": _mean(self.dependence),
            "click_rate_difference": round(self.click_rate, 5),
        }


def compare(real: pl.DataFrame, synthetic: pl.DataFrame, label: str) -> ClickCard:
    """Return the card of a synthetic table whose categories have the values of the real one."""
    names = [name for name in real.columns if name in synthetic.columns]
    codes = {name: _codes(real[name], synthetic[name]) for name in names}
    marginals = {
        name: _variation(*(_shares(column, BINS + 2) for column in codes[name])) for name in names
    }
    pairs, dependence = {}, {}
    size = BINS + 2
    for a, b in combinations(names, 2):
        joint = [
            _shares(x * size + y, size * size) for x, y in zip(codes[a], codes[b], strict=True)
        ]
        pairs[f"{a} x {b}"] = _variation(*joint)
        told = [_told(column.reshape(size, size), len(real)) for column in joint]
        dependence[f"{a} x {b}"] = abs(told[0] - told[1])
    rates = [float(frame[label].cast(pl.Float64).mean() or 0.0) for frame in (real, synthetic)]  # pyright: ignore[reportArgumentType]
    return ClickCard(
        marginals=marginals,
        pairs=pairs,
        dependence=dependence,
        click_rate=abs(rates[0] - rates[1]),
    )


def _codes(real: pl.Series, synthetic: pl.Series) -> tuple[Codes, Codes]:
    """Return the values of both as bins of the real ones; the last is for missing."""
    if real.dtype.is_numeric() and real.n_unique() > BINS:
        known = real.drop_nulls().cast(pl.Float64).to_numpy()
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
        pair = []
        for column in (real, synthetic):
            values = column.cast(pl.Float64).to_numpy()
            codes = np.searchsorted(edges, values, side="right")
            pair.append(np.where(np.isnan(values), BINS + 1, codes))
        return pair[0], pair[1]
    frequent = real.drop_nulls().value_counts(sort=True).head(BINS)[real.name]
    table = {value: code for code, value in enumerate(frequent.to_list())}
    columns = ([table.get(value, BINS) if value is not None else BINS + 1 for value in column]
               for column in (real.to_list(), synthetic.to_list()))  # fmt: skip
    one, two = (np.array(column, np.int64) for column in columns)
    return one, two


def _shares(codes: Codes, size: int) -> NDArray[np.float64]:
    return np.bincount(codes, minlength=size) / max(len(codes), 1)


def _variation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).sum() / 2)


def _told(shares: NDArray[np.float64], rows: int) -> float:
    """Return the mutual information as a share of the smaller entropy."""
    entropies = []
    for axis in (0, 1):
        marginal = shares.sum(axis=axis)
        marginal = marginal[marginal > 0]
        entropies.append(float(-(marginal * np.log(marginal)).sum()))
    return min(1.0, information(shares * rows) / max(min(entropies), 1e-9))


def _mean(values: dict[str, float]) -> float:
    return round(sum(values.values()) / max(len(values), 1), 4)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
