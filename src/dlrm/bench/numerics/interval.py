"""The interval of a change that is known from a few seeds and some rows.

Two things are luck: the seeds that were trained with, and the rows that were measured on. Each adds
its own part to the half width of the 95% interval, and both are independent:

    half^2 = (t(n - 1) s / sqrt(n))^2 + (1.96 r)^2

s is the standard deviation over n seeds of the difference to the reference of the same seed; t is
Student's quantile, large for few seeds (Student, "The Probable Error of a Mean", Biometrika 1908).
r is the standard deviation of the mean difference over bootstrap resamples of the rows, the same
for all (`dlrm.metrics.resample`). Rows alone would call chance of training a finding, and seeds
alone chance of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5% of Student's t with 1, 2, ... degrees of freedom."""
NORMAL = 1.96


@dataclass(frozen=True, slots=True)
class Change:
    """The mean difference to the reference, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t; beyond 30 degrees to three digits."""
    if freedom <= len(QUANTILES):
        return QUANTILES[freedom - 1]
    # The first terms of the expansion in 1 / freedom (Abramowitz, Stegun, 26.7.5).
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def change(
    values: Sequence[float],
    reference: Sequence[float],
    resampled: Sequence[NDArray[np.float64]],
    reference_resampled: Sequence[NDArray[np.float64]],
) -> Change:
    """Return the change of a metric.

    Args:
        values: Of the variant, one a seed, at least two.
        reference: Of the reference, of the same seeds.
        resampled: The metric on each resample of the rows (R,), of each seed.
        reference_resampled: The same of the reference, on the same resamples.

    """
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    n = len(differences)
    over_seeds = student(n - 1) * stdev(differences) / sqrt(n)
    pairs = zip(resampled, reference_resampled, strict=True)
    mean = np.mean([a - b for a, b in pairs], axis=0)
    # A resample of one class has no AUC.
    over_rows = NORMAL * float(np.nanstd(mean)) if np.isfinite(mean).any() else 0.0
    middle, half = fmean(differences), hypot(over_seeds, over_rows)
    return Change(middle, middle - half, middle + half)
