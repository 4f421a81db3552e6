"""What can be said of a variant, and of all of them.

    neutral      the whole interval of the AUC's change lies within +-.0002
    worse        it lies below 0, but not within that
    better       above
    no verdict   it does not exclude 0, and is too wide for neutral

A change that cannot be told from 0 is not neutral: few seeds and few rows would make anything so.

Two things are luck: the seeds that were trained with, and the rows that were measured on. Each adds
its own part to the half width of the 95% interval of a change, and both are independent:

    half^2 = (t(n - 1) s / sqrt(n))^2 + (1.96 r)^2

s is the standard deviation over n seeds of the difference to the reference of the same seed; t is
Student's quantile, large for few seeds (Student, "The Probable Error of a Mean", Biometrika 1908).
r is the standard deviation of the mean difference over bootstrap resamples of the rows, the same
for all (`dlrm.metrics.resample`). Rows alone would call chance of training a finding, and seeds
alone chance of the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dlrm.bench.numerics.study import Study, Tried
from dlrm.bench.timer import Timing, ratio

QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5% of Student's t with 1, 2, ... degrees of freedom."""
NORMAL = 1.96
NEUTRAL = 2e-4
"""Changes of the AUC that nobody would notice: online experiments tell a thousandth apart."""
Verdict = Literal["neutral", "worse", "better", "no verdict"]
METRICS = ("auc", "normalized_entropy", "log_loss", "calibration")
Row = Mapping[str, Any]


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

    Values are those of the same seeds, at least two; `resampled` has the metric (R,) on each
    resample of the rows, the same resamples for both.
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


def verdict(auc: Change) -> Verdict:
    """Return what the interval of a change of the AUC says."""
    if auc.low >= -NEUTRAL and auc.high <= NEUTRAL:
        return "neutral"
    if auc.high < 0:
        return "worse"
    return "better" if auc.low > 0 else "no verdict"


def rows(study: Study, data: str) -> list[dict[str, Any]]:
    """Return a row of results for each variant that was begun; the study may have been stopped."""
    begun = [entry for entry in study.tried if entry.scores or not entry.open]
    results = [_row(study, entry, data) for entry in begun]
    for entry in results:
        entry["pareto"] = pareto(entry, results)
    return results


def pareto(row: Row, others: Sequence[Row]) -> bool:
    """Return whether no other row reads fewer bytes at no lower AUC, or the same at a higher."""
    if row["error"] is not None or row["auc_change"] is None:
        return False

    def beats(other: Row) -> bool:
        if other["error"] is not None or other["auc_change"] is None:
            return False
        bytes_, auc = other["bytes_per_sample"], other["auc_change"]
        row_bytes, row_auc = row["bytes_per_sample"], row["auc_change"]
        return bytes_ <= row_bytes and auc >= row_auc and (bytes_ < row_bytes or auc > row_auc)

    return not any(map(beats, others))


def _row(study: Study, tried: Tried, data: str) -> dict[str, Any]:
    reference, variant = study.reference, tried.variant
    count = len(tried.scores)
    # A variant may have failed, or the user stopped, before the last seed.
    paired = reference.scores[:count]
    measured = {metric: [s.value(metric) for s in tried.scores] for metric in METRICS}
    base = {metric: [s.value(metric) for s in paired] for metric in METRICS}
    changes = {
        metric: fmean(measured[metric]) - fmean(base[metric]) if count else None
        for metric in METRICS
    }
    auc, judged = None, None
    if tried is not reference and count > 1 and tried.open:
        auc = change(
            measured["auc"],
            base["auc"],
            [s.resampled for s in tried.scores],
            [s.resampled for s in paired],
        )
        judged = verdict(auc)
    error = tried.error
    return {
        "data": data,
        "recipe": study.recipe,
        "variant": variant.name,
        "kind": variant.kind,
        "what": variant.what,
        "seeds": list(range(count)),
        "training_rows": len(study.dataset.split("train")),
        "test_rows": len(study.test),
        **measured,
        "auc_mean": fmean(measured["auc"]) if count else None,
        "auc_change": changes["auc"],
        "auc_change_low": auc.low if auc else 0.0 if tried is reference else None,
        "auc_change_high": auc.high if auc else 0.0 if tried is reference else None,
        **{f"{metric}_change": changes[metric] for metric in METRICS[1:]},
        "noise_auc": noise(study),
        "verdict": judged or ("no verdict" if tried is not reference else None),
        "bytes_per_sample": tried.bytes_per_sample,
        "tables_bytes": tried.tables_bytes,
        **_speed("", tried.scoring),
        **_speed("training_", tried.training),
        "pareto": False,
        "error": error,
    }


def noise(study: Study) -> float | None:
    """Return the standard deviation of the reference's AUC over seeds; None for fewer than two."""
    values = [score.value("auc") for score in study.reference.scores]
    return stdev(values) if len(values) > 1 else None


def _speed(prefix: str, timings: tuple[Timing, Timing] | None) -> dict[str, Any]:
    """Return samples a second, and how many times that is the reference's, with its interval."""
    if timings is None:
        names = ("samples_per_s", "speedup", "speedup_low", "speedup_high")
        return {f"{prefix}{name}": None for name in names}
    reference, variant = timings
    middle, low, high = ratio(reference, variant)
    return {
        f"{prefix}samples_per_s": 1 / variant.median,
        f"{prefix}speedup": middle,
        f"{prefix}speedup_low": low,
        f"{prefix}speedup_high": high,
    }


def conclusion(results: Sequence[Row]) -> str:
    """Return what came out, in a sentence or two."""
    base = next((row for row in results if row["kind"] == "reference"), None)
    if base is None or base["noise_auc"] is None:
        return "Stopped before two seeds were measured: nothing can be said."
    sentences = []
    neutral = [row for row in results if row["verdict"] == "neutral"]
    if neutral:
        best = min(neutral, key=lambda row: (row["bytes_per_sample"], -row["auc_change"]))
        times = base["bytes_per_sample"] / best["bytes_per_sample"]
        fewer = f" at {times:.1f} times fewer bytes a sample" if times > 1 else ""
        sentences.append(f"{best['variant']} is neutral{fewer}.")
    else:
        sentences.append(
            f"Nothing is shown to be neutral, which takes an interval within ±{NEUTRAL:g}: "
            "more seeds and more test rows make it narrower."
        )
    by_name = {row["variant"]: row for row in results if row["error"] is None}
    for codes in ("int8", "int4", "int2"):
        after, trained = by_name.get(codes), by_name.get(f"aware-{codes}")
        if after is None or after["verdict"] != "worse":
            continue
        cost = f"{codes} after training costs {-after['auc_change']:.4f} AUC"
        if trained is None or trained["auc_change_low"] is None:
            sentences.append(f"{cost}.")
        else:
            sentences.append(f"{cost}; {_brings_back(after['auc_change'], trained)}.")
    return " ".join(sentences)


def _brings_back(lost: float, trained: Row) -> str:
    """Say what training for codes brings, beside what rounding to them afterwards has lost."""
    if trained["auc_change_low"] > lost:
        return f"training for it brings back {trained['auc_change'] - lost:.4f}"
    if trained["auc_change_high"] < lost:
        return "training for it brings nothing back"
    return "whether training for it brings something back cannot be told"
