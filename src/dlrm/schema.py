"""What the columns of a dataset mean."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseFeature:
    """A number per sample, already transformed as the model sees it."""

    name: str
    """Name of the input column."""
    transform: str = "none"
    """How the raw number became this one, e.g. `log1p`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoricalFeature:
    """An id (or a bag of ids) per sample, looked up in a table of its own."""

    name: str
    """Name of the input column."""
    rows: int
    """Rows of its table; ids are 0 <= id < rows."""
    multi_hot: bool = False
    """Whether a sample holds a bag of ids, of any length, or exactly one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """The input of a model: N dense features, T categorical ones, and a label."""

    dense: tuple[DenseFeature, ...]
    categorical: tuple[CategoricalFeature, ...]
    label: str = "label"

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each table, in feature order."""
        return tuple(feature.rows for feature in self.categorical)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each categorical feature."""
        return tuple(feature.name for feature in self.categorical)

    def to_dict(self) -> dict[str, Any]:
        """Return this schema as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Schema":
        """Rebuild a schema from what `to_dict` returned."""
        return cls(
            dense=tuple(DenseFeature(**feature) for feature in values["dense"]),
            categorical=tuple(CategoricalFeature(**feature) for feature in values["categorical"]),
            label=values["label"],
        )

    def difference(self, other: "Schema") -> str | None:
        """Say in words how `other` differs from this schema; None when it does not."""
        for kind, mine, theirs in (
            ("dense feature", self.dense, other.dense),
            ("categorical feature", self.categorical, other.categorical),
        ):
            if len(mine) != len(theirs):
                return f"{len(mine)} {kind}s against {len(theirs)}"
            for ours, its in zip(mine, theirs, strict=True):
                if ours != its:
                    return f"{ours} against {its}"
        return None if self.label == other.label else f"label {self.label} against {other.label}"
