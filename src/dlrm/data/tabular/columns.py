"""What becomes of each column of a table: the schema that is inferred, edited and given back.

A column is a number, a category, a list of categories, or ignored; a cross is the combination of
two or three categories, which is a category itself.
"""

from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from typing import Annotated, Literal, get_args

import tyro

from dlrm.errors import ConfigError, unknown

Kind = Literal["number", "category", "list", "ignore"]
Scale = Literal["none", "standard", "log", "quantile"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SCALES: tuple[Scale, ...] = get_args(Scale)
CROSS_NAME = " x "
MOST_CROSSED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """How the values of a category, or of a cross, become model inputs."""

    min_count: int = 1
    """Values that the training rows have fewer times share the row "other" with unseen ones."""
    hash_rows: int = 0
    """Hash the values into so many rows; 0 gives each value a row of its own."""
    embed: bool = True
    """Whether the values have an embedding; without one, only their numbers below remain."""
    log_count: bool = False
    """A number beside it: log(1 + how often the training rows have the value)."""
    target_mean: bool = False
    """A number beside it: the share of clicks of the value, out of fold for training rows."""
    target_score: bool = False
    """A number beside it: by how many standard deviations the value has more clicks than as many
    rows of any kind, out of fold for training rows. Surer than a mean where values are rare."""
    folds: int = 10
    """Of target means: a training row's leaves out its whole fold."""
    prior: float = 10.0
    """Of target means: rows at the overall click rate that are added to those of each value."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds is {self.folds}, expected 2 or more")
        if not 0 < self.prior < float("inf"):
            raise ConfigError(f"prior is {self.prior}, expected a positive number")
        if self.min_count < 1:
            raise ConfigError(f"min_count is {self.min_count}, expected 1 or more")
        if self.hash_rows and not 2 <= self.hash_rows < 2**31:
            raise ConfigError(f"hash_rows is {self.hash_rows}, expected 0 or at least 2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    """As the header has it."""
    kind: Kind
    """What it is."""
    scale: Scale = "standard"
    """Number: as it is; with mean 0 and deviation 1; the same after a logarithm; or its rank among
    the training rows. 0 stands for missing."""
    buckets: int = 0
    """Number: also a category of so many quantile buckets, and one for missing; 0 for none."""
    dense: bool = True
    """Number: whether it is a number to the model, or only its buckets are."""
    missing_flag: bool = False
    """Number: another number beside it, 1 where it is missing."""
    time: bool = False
    """Number: a time, in seconds; texts are such as `2024-01-31` or `2024-01-31 12:00:00`."""
    separator: str = "|"
    """List: what stands between its values in a text file."""
    values: Values = field(default_factory=Values)
    """Category and list."""
    why: str = field(default="", compare=False)
    """Why it was taken for that."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown(f"kind of column {self.name}", self.kind, KINDS)
        if self.scale not in SCALES:
            raise unknown(f"scale of column {self.name}", self.scale, SCALES)
        if self.buckets and not 2 <= self.buckets <= 100_000:
            problem = f"column {self.name}: buckets is {self.buckets}"
            raise ConfigError(f"{problem}, expected 0 or from 2 to 100000")
        if self.kind == "number" and not self.dense and not self.buckets:
            raise ConfigError(
                f"column {self.name} has neither a number nor buckets: set kind to ignore"
            )
        if self.kind == "list" and not self.separator:
            raise ConfigError(f"column {self.name}: separator is empty")
        if self.kind == "list" and (
            self.values.log_count or self.values.target_mean or self.values.target_score
        ):
            raise ConfigError(
                f"column {self.name}: log_count, target_mean and target_score are for categories, "
                "not for lists"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cross:
    """The combination of two or three columns, a category of its own."""

    columns: tuple[str, ...]
    values: Values = field(default_factory=Values)
    why: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Return the name of the feature."""
        return CROSS_NAME.join(self.columns)

    def __post_init__(self) -> None:
        if not 2 <= len(self.columns) <= MOST_CROSSED or len(set(self.columns)) < len(self.columns):
            said = " and ".join(self.columns) or "nothing"
            raise ConfigError(f"a cross of {said}: expected two or three different columns")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The schema of a table."""

    label: str
    """The column to predict."""
    positive: str | None = None
    """What the label is for a click: a value, or a comparison such as `>= 4`; None where it is 1,
    true, yes or the like."""
    columns: tuple[Column, ...] = ()
    """All others, in the order of the table."""
    crosses: tuple[Cross, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for column in self.columns:
            if column.name in seen or column.name == self.label:
                raise ConfigError(f"the schema has the column {column.name} twice")
            seen.add(column.name)
        crossed: set[frozenset[str]] = set()
        for cross in self.crosses:
            for name in cross.columns:
                if name not in seen:
                    raise unknown("column in a cross", name, sorted(seen))
                column = self.column(name)
                if column.kind != "category" and not (column.kind == "number" and column.buckets):
                    raise ConfigError(
                        f"the cross {cross.name}: {name} is of kind {column.kind}; crosses are "
                        "made of categories, and of numbers with buckets"
                    )
            if frozenset(cross.columns) in crossed:
                raise ConfigError(f"the schema has the cross {cross.name} twice")
            crossed.add(frozenset(cross.columns))
        if not any(column.kind != "ignore" for column in self.columns):
            raise ConfigError("the schema ignores every column: there is nothing to learn from")

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)

    def used(self) -> tuple[Column, ...]:
        """Return the columns that are not ignored."""
        return tuple(column for column in self.columns if column.kind != "ignore")


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfig:
    """What becomes of the columns of a table; unset fields are left as inferred or in the schema.

    Everything is fitted on the training rows alone.
    """

    numbers: Scale | Literal["drop"] | None = None
    """How numbers are scaled: none, standard, log or quantile; drop leaves only their buckets."""
    buckets: int | None = None
    """Numbers become categories of so many quantile buckets as well; 0 for none."""
    missing_flags: bool | None = None
    """Whether a number beside each number says that it is missing."""
    min_count: int | None = None
    """Values that the training rows have fewer times share a row with unseen ones."""
    hash_rows: int | None = None
    """Hash the values of each category into so many rows; 0 gives each a row of its own."""
    log_counts: bool = False
    """A number beside each category: log(1 + how often the training rows have its value)."""
    target_means: bool = False
    """A number beside each category: the share of clicks of its value, which leaves out, for a
    training row, that row and its whole fold."""
    target_scores: bool = False
    """A number beside each category: by how many standard deviations its value has more clicks
    than as many rows of any kind, likewise."""
    folds: int | None = None
    """Of target means: a training row's leaves out its whole fold."""
    prior: float | None = None
    """Of target means: rows at the overall click rate that are added to those of each value."""
    crosses: tuple[str, ...] = ()
    """Combinations that become categories: "A*B", "A*B*C", or `pairs` and `triples` for all of the
    categories."""
    cross_min_count: int = 1
    """As min_count, for crosses."""
    cross_hash_rows: int = 0
    """As hash_rows, for crosses."""
    cross_embed: bool = True
    """Whether crosses have embeddings; without, only their log counts and target means remain."""
    select: Annotated[Literal["given", "auto"], tyro.conf.arg(aliases=["--features"])] = "given"
    """auto tries buckets, log counts, target means and crosses on the training rows, and keeps what
    helps."""

    def __post_init__(self) -> None:
        for cross in self.crosses:
            if cross in ("pairs", "triples"):
                continue
            if not 2 <= len(cross.split("*")) <= MOST_CROSSED:
                problem = f'features.crosses has "{cross}"'
                raise ConfigError(f'{problem}, expected "A*B", "A*B*C", pairs or triples')

    def apply(self, schema: Columns) -> Columns:
        """Return the schema with what is set here."""
        columns = tuple(self._column(column) for column in schema.columns)
        made = {frozenset(cross.columns): cross for cross in schema.crosses}
        categories = [column.name for column in columns if column.kind == "category"]
        for cross in self.crosses:
            size = {"pairs": 2, "triples": 3}.get(cross)
            asked = (
                combinations(categories, size)
                if size
                else [tuple(name.strip() for name in cross.split("*"))]
            )
            for names in asked:
                made[frozenset(names)] = Cross(columns=names, values=self._cross_values())
        return replace(schema, columns=columns, crosses=tuple(made.values()))

    @property
    def unset(self) -> bool:
        """Whether nothing is set."""
        return self == FeaturesConfig()

    def _column(self, column: Column) -> Column:
        if column.kind == "number":
            scale = column.scale if self.numbers in (None, "drop") else self.numbers
            buckets = column.buckets if self.buckets is None else self.buckets
            flag = column.missing_flag if self.missing_flags is None else self.missing_flags
            dense = column.dense if self.numbers is None else self.numbers != "drop"
            return replace(column, scale=scale, buckets=buckets, missing_flag=flag, dense=dense)
        if column.kind == "ignore":
            return column
        now = column.values
        single = column.kind == "category"
        values = replace(
            now,
            min_count=now.min_count if self.min_count is None else self.min_count,
            hash_rows=now.hash_rows if self.hash_rows is None else self.hash_rows,
            log_count=now.log_count or (self.log_counts and single),
            target_mean=now.target_mean or (self.target_means and single),
            target_score=now.target_score or (self.target_scores and single),
            folds=now.folds if self.folds is None else self.folds,
            prior=now.prior if self.prior is None else self.prior,
        )
        return replace(column, values=values)

    def _cross_values(self) -> Values:
        return Values(
            min_count=self.cross_min_count,
            hash_rows=self.cross_hash_rows,
            embed=self.cross_embed,
            log_count=self.log_counts,
            target_mean=self.target_means,
            target_score=self.target_scores,
            folds=Values().folds if self.folds is None else self.folds,
            prior=Values().prior if self.prior is None else self.prior,
        )


def names_of(record: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(each.name for each in fields(record))
