"""What is in a prepared dataset, in numbers."""

from dataclasses import dataclass

import polars as pl

from dlrm.data.store import Dataset
from dlrm.data.tabular.encoder import TableEncoder, open_encoder


@dataclass(frozen=True, slots=True)
class SplitNumbers:
    """A split in numbers."""

    name: str
    rows: int
    clicks: int

    @property
    def click_rate(self) -> float | None:
        """Share of clicks; None without rows."""
        return self.clicks / self.rows if self.rows else None


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a category."""

    id: int
    value: str | None
    """As the raw data write it; None is missing."""
    count: int
    share: float
    """Of all samples; of a table, of its training rows."""


@dataclass(frozen=True, slots=True)
class FeatureNumbers:
    """A feature in numbers."""

    name: str
    kind: str
    """`dense` or `categorical`"""
    missing_rate: float
    values: int | None
    """Distinct values that have an id of their own; None for a number."""
    rare: int
    """Samples whose value has none."""
    head: tuple[Value, ...]
    """The values of the first ids."""


def splits(dataset: Dataset) -> list[SplitNumbers]:
    """Return the splits of a dataset in numbers."""
    return [
        SplitNumbers(name, split["rows"], split["clicks"])
        for name, split in dataset.manifest["splits"].items()
    ]


def features(dataset: Dataset, head: int) -> list[FeatureNumbers]:
    """Return the features of a dataset in numbers.

    Args:
        dataset: The dataset.
        head: How many values to list of each category.

    """
    encoder, manifest = open_encoder(dataset.path), dataset.manifest
    # The values of a table are counted on its training rows, those of a log on all.
    on_train = isinstance(encoder, TableEncoder)
    rows = max(1, manifest["splits"]["train"]["rows"] if on_train else manifest["rows"])
    described = []
    for feature in dataset.manifest["features"]:
        values: tuple[Value, ...] = ()
        if feature["rows"] is not None and head > 0:
            frame = encoder.vocabulary(feature["name"]).frame.head(head)
            # The criteo format writes categories in hexadecimal, whoever made the log.
            as_hex = frame.schema["value"] == pl.UInt32 and not encoder.max_rows_per_table
            values = tuple(
                Value(number, text(value, as_hex=as_hex), count, count / rows)
                for number, (value, count) in enumerate(frame.iter_rows())
            )
        described.append(
            FeatureNumbers(
                name=feature["name"],
                kind=feature["kind"],
                missing_rate=feature["missing_rate"],
                values=None if feature["rows"] is None else feature["rows"] - 1,
                rare=feature["rare"] or 0,
                head=values,
            )
        )
    return described


def text(value: int | str | None, *, as_hex: bool) -> str | None:
    """Return a value as the raw log writes it."""
    if as_hex and isinstance(value, int):
        return f"{value:08x}"
    return None if value is None else str(value)
