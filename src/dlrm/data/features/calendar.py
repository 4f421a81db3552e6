"""What a time says beside its seconds: the hour, the weekday, and how long ago it was.

x is a time in seconds since 1970 (UTC), or since midnight.

    hour      a category of 24 and one for missing
    weekday   a category of 7, Monday first, and one for missing
    recency   s = sign(age) log(1 + |age|), age the hours before the newest training row, with mean
              0 and deviation 1; missing is 0
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.data.features.inputs import Input, Parts

_DAY_S, _HOUR_S = 86_400, 3600
_HOURS = tuple(f"{hour:02}" for hour in range(24))
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_THURSDAY = 3
"""The weekday on which 1970 began."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calendar:
    """The parts of a time in which the training rows differ."""

    hour: bool
    weekday: bool
    recency: bool
    newest: float
    """Seconds since 1970 of the newest training row."""
    center: float
    deviation: float

    @classmethod
    def fit(cls, seconds: NDArray[np.float64]) -> "Calendar":
        """Fit to the times (n,) of the training rows, none of them missing."""
        if not len(seconds):
            return cls(
                hour=False, weekday=False, recency=False, newest=0.0, center=0.0, deviation=1.0
            )
        newest = float(seconds.max())
        ages = _ages(seconds, newest)
        # Times without a day have an hour and nothing else.
        days = bool(newest >= _DAY_S)
        return cls(
            hour=_differ(_hours(seconds)),
            weekday=days and _differ(_weekdays(seconds)),
            recency=days and _differ(ages),
            newest=newest,
            center=float(ages.mean()),
            deviation=float(ages.std()) or 1.0,
        )

    def inputs(self, name: str) -> list[Input]:
        """Return what the model gets beside the time of that name."""
        inputs = []
        if self.recency:
            inputs.append(Input(name=f"{name} recency", transform="recency"))
        if self.hour:
            inputs.append(_category(f"{name} hour", _HOURS))
        if self.weekday:
            inputs.append(_category(f"{name} weekday", _WEEKDAYS))
        return inputs

    def encode(self, seconds: NDArray[np.float64], part: Parts) -> None:
        """Add the inputs of times (n,), NaN where one is missing."""
        missing = np.isnan(seconds)
        known = np.where(missing, 0.0, seconds)
        if self.recency:
            ages = (_ages(known, self.newest) - self.center) / self.deviation
            part.dense.append(np.where(missing, 0.0, ages).astype(np.float32))
        if self.hour:
            part.ids.append(np.where(missing, 24, _hours(known)).astype(np.int32))
        if self.weekday:
            part.ids.append(np.where(missing, 7, _weekdays(known)).astype(np.int32))


def _category(name: str, values: tuple[str, ...]) -> Input:
    names = (*values, "(missing)")
    return Input(name=name, num_embeddings=len(names), value_names=names)


def _hours(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    return seconds % _DAY_S // _HOUR_S


def _weekdays(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    return (seconds // _DAY_S + _THURSDAY) % 7


def _ages(seconds: NDArray[np.float64], newest: float) -> NDArray[np.float64]:
    ages = (newest - seconds) / _HOUR_S
    return np.sign(ages) * np.log1p(np.abs(ages))


def _differ(values: NDArray[np.float64]) -> bool:
    return bool(values.min() < values.max())
