"""The schema of a model's input: dense features, categorical features, tables, labels.

A table is storage of its own: several features may look up the same one, such as an item and the
history of items.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dlrm.errors import ConfigError, unknown

Kind = Literal["one_hot", "bag", "sequence"]
"""How many ids a sample has of a categorical feature: exactly one; any number, whose order means
nothing; or any number in their order, the newest last."""

Task = Literal["classification", "regression"]
"""What labels are: 0 or 1, or any numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseFeature:
    """A number per sample, already transformed as the model sees it."""

    name: str
    """Name of the input column."""
    transform: str = "none"
    """How the raw number became this one, e.g. `log1p`."""
    bins: int = 0
    """Components that a model makes of a piecewise number, a position from 0 to `bins`, see
    `dlrm.nn.numbers`; 0 for a number that a model takes as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """An embedding table, without its dimension, which is a choice of the model."""

    name: str
    """Unique among the tables of a schema."""
    num_embeddings: int
    """Rows; ids are 0 <= id < num_embeddings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """A categorical feature: ids per sample, looked up in a table."""

    name: str
    """Name of the input column; unique among the categorical features."""
    table: str
    """Name of its table."""
    kind: Kind = "one_hot"
    """How many ids a sample has."""
    max_length: int = 0
    """Ids that are kept of a longer list, the newest; 0 for all."""

    @property
    def is_list(self) -> bool:
        """Whether a sample has any number of ids."""
        return self.kind != "one_hot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """The input of a model: N dense features, T categorical ones, and K labels.

    Raises:
        ConfigError: Two features, tables or labels have one name, or a table, a kind or the task is
            unknown.

    """

    dense: tuple[DenseFeature, ...]
    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    labels: tuple[str, ...] = ("label",)
    task: Task = "classification"

    def __post_init__(self) -> None:
        for what, names in (
            ("dense feature", [feature.name for feature in self.dense]),
            ("table", [table.name for table in self.tables]),
            ("categorical feature", list(self.feature_names)),
            ("label", list(self.labels)),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ConfigError(f"the schema has the {what} {min(twice)} twice")
        tables = {table.name for table in self.tables}
        for feature in self.features:
            if feature.table not in tables:
                raise unknown(f"table of the feature {feature.name}", feature.table, sorted(tables))
            if feature.kind not in get_args(Kind):
                raise unknown(f"kind of the feature {feature.name}", feature.kind, get_args(Kind))
        if self.task not in get_args(Task):
            raise unknown("task", self.task, get_args(Task))

    @classmethod
    def one_hot(
        cls,
        num_dense: int,
        num_embeddings: Iterable[int],
        names: Sequence[str] | None = None,
        *,
        kind: Kind = "one_hot",
        labels: tuple[str, ...] = ("label",),
    ) -> "Schema":
        """Return a schema in which each categorical feature has a table of its own.

        Names are I1, I2, ... of the `num_dense` features, and of the T categorical ones and their
        tables, if none are given, C1, C2, ...
        """
        sizes = list(num_embeddings)
        called = names if names is not None else [f"C{t + 1}" for t in range(len(sizes))]
        return cls(
            dense=tuple(DenseFeature(name=f"I{i + 1}") for i in range(num_dense)),
            tables=tuple(
                Table(name=name, num_embeddings=n) for name, n in zip(called, sizes, strict=True)
            ),
            features=tuple(Feature(name=name, table=name, kind=kind) for name in called),
            labels=labels,
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of each categorical feature."""
        return tuple(feature.name for feature in self.features)

    @property
    def one_hot_features(self) -> tuple[Feature, ...]:
        """Features with one id a sample, in the order of the columns of `Batch.ids`."""
        return tuple(feature for feature in self.features if not feature.is_list)

    @property
    def list_features(self) -> tuple[Feature, ...]:
        """Bags and sequences, in the order of `Batch.lists`."""
        return tuple(feature for feature in self.features if feature.is_list)

    @property
    def num_embeddings(self) -> tuple[int, ...]:
        """Rows of the table of each categorical feature."""
        sizes = {table.name: table.num_embeddings for table in self.tables}
        return tuple(sizes[feature.table] for feature in self.features)

    @property
    def num_labels(self) -> int:
        """K, the number of labels, and of logits."""
        return len(self.labels)

    def feature(self, name: str) -> Feature:
        """Return the categorical feature of that name.

        Raises:
            ConfigError: There is none; lists the choices.

        """
        if name not in self.feature_names:
            raise unknown("categorical feature", name, self.feature_names)
        return self.features[self.feature_names.index(name)]

    def to_dict(self) -> dict[str, Any]:
        """Return this schema as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Schema":
        """Rebuild a schema from what `to_dict` returned."""
        parts = {"dense": DenseFeature, "tables": Table, "features": Feature}
        built = {key: tuple(part(**one) for one in values[key]) for key, part in parts.items()}
        return cls(**built, labels=tuple(values["labels"]), task=values["task"])

    def difference(self, other: "Schema") -> str | None:
        """Say in words how `other` differs from this schema; None when it does not."""
        for kind, expected, actual in (
            ("dense feature", self.dense, other.dense),
            ("table", self.tables, other.tables),
            ("categorical feature", self.features, other.features),
            ("label", self.labels, other.labels),
        ):
            if len(expected) != len(actual):
                return f"{len(expected)} {kind}s against {len(actual)}"
            for part, other_part in zip(expected, actual, strict=True):
                if part != other_part:
                    return f"{part} against {other_part}"
        return None if self.task == other.task else f"{self.task} against {other.task}"
