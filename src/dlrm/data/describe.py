"""What is in a prepared dataset, in numbers."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlrm.data.store import Dataset
from dlrm.data.vocabulary import Vocabulary
from dlrm.schema import Schema


class FittedFeatures(Protocol):
    """What turned raw columns into a dataset, as far as it is asked what inputs mean."""

    @property
    def schema(self) -> Schema:
        """The inputs."""
        ...

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the values of a categorical feature by id; the last id is for all others."""
        ...

    def raw(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return numbers of a dense feature as the raw data have them."""
        ...


@dataclass(frozen=True, slots=True)
class LabelNumbers:
    """A label of a split in numbers; None where there are no rows, or where they do not apply."""

    name: str
    positives: int | None = None
    """Rows in which it is 1; of classification."""
    positive_rate: float | None = None
    """Share of these."""
    mean: float | None = None
    """Of regression, as all below."""
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class SplitNumbers:
    """A split in numbers."""

    name: str
    rows: int
    labels: tuple[LabelNumbers, ...]
    """One or more."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a category."""

    id: int
    value: str | None
    """As the raw data write it; None is missing."""
    count: int
    share: float
    """Of the rows in which values were counted."""


@dataclass(frozen=True, slots=True)
class FeatureNumbers:
    """A feature in numbers."""

    name: str
    kind: str
    """`dense`, or the kind of a categorical feature"""
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
        SplitNumbers(
            name, split["rows"], tuple(_label(label, split) for label in dataset.schema.labels)
        )
        for name, split in dataset.manifest["splits"].items()
    ]


def _label(name: str, split: dict[str, Any]) -> LabelNumbers:
    if "positives" in split:
        positives, rows = split["positives"][name], split["rows"]
        return LabelNumbers(name, positives, positives / rows if rows else None)
    numbers = {key: split[key][name] for key in ("mean", "min", "max")}
    return LabelNumbers(name, **numbers)


def features(dataset: Dataset, fitted: FittedFeatures, head: int) -> list[FeatureNumbers]:
    """Return the features of a dataset in numbers."""
    manifest = dataset.manifest
    # Of a table, values are counted on its training rows alone.
    rows = max(1, manifest.get("counted_rows", manifest["rows"]))
    described = []
    for feature in manifest["features"]:
        values: tuple[Value, ...] = ()
        if feature["num_embeddings"] is not None and head > 0:
            vocabulary = fitted.vocabulary(feature["name"])
            counts = vocabulary.frame["count"].head(head).to_list()
            values = tuple(
                Value(id, vocabulary.text(id), count, count / rows)
                for id, count in enumerate(counts)
            )
        described.append(
            FeatureNumbers(
                name=feature["name"],
                kind=feature["kind"],
                missing_rate=feature["missing_rate"],
                values=None if feature["num_embeddings"] is None else feature["num_embeddings"] - 1,
                rare=feature["rare"] or 0,
                head=values,
            )
        )
    return described
