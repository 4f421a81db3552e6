"""What becomes of each column of a table: the schema that is inferred, edited and given back.

A column is a number, a category, a list or a sequence of categories, or ignored; a cross is the
combination of two or three categories, which is a category itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from dlrm.data.vocabulary import ID_ORDERS, IdOrder
from dlrm.errors import ConfigError, unknown
from dlrm.schema import Task

Kind = Literal["number", "category", "list", "sequence", "ignore"]
Scale = Literal["none", "standard", "log", "log1p", "quantile"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SCALES: tuple[Scale, ...] = get_args(Scale)
TASKS: tuple[Task, ...] = get_args(Task)
LISTS: tuple[Kind, ...] = ("list", "sequence")
WITH_IDS: tuple[Kind, ...] = ("category", *LISTS)
CROSS_NAME = " x "
MOST_CROSSED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """How the values of a category, a list or a cross become model inputs."""

    min_count: int = 1
    """Values that the training rows have fewer times share the row "other" with unseen ones."""
    hash_rows: int = 0
    """Hash the values into so many rows; 0 gives each value a row of its own."""
    embed: bool = True
    """Whether the values have an embedding; without one, only their numbers below remain."""
    log_count: bool = False
    """A number beside it: log(1 + how often the training rows have the value)."""
    target_mean: bool = False
    """A number beside it: the mean label of the value, out of fold for training rows."""
    target_score: bool = False
    """A number beside it: by how many standard deviations the labels of the value sum to more than
    those of as many rows of any kind, out of fold for training rows. Surer than a mean where values
    are rare."""
    folds: int = 10
    """Of target means: a training row's leaves out its whole fold."""
    prior: float = 10.0
    """Of target means: rows at the overall mean that are added to those of each value."""
    whole_log: bool = False
    """Raw values are numbered over all rows of a log, not over the training rows alone."""
    ids: IdOrder = "appearance"
    """Of a whole log: ids by first appearance, or by frequency."""
    modulo: int = 0
    """Of a whole log: values are taken modulo this number first; 0 leaves them."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds is {self.folds}, expected 2 or more")
        if not 0 < self.prior < float("inf"):
            raise ConfigError(f"prior is {self.prior}, expected a positive number")
        if self.min_count < 1:
            raise ConfigError(f"min_count is {self.min_count}, expected 1 or more")
        if self.hash_rows and not 2 <= self.hash_rows < 2**31:
            raise ConfigError(f"hash_rows is {self.hash_rows}, expected 0 or at least 2")
        if self.ids not in ID_ORDERS:
            raise unknown("order of ids", self.ids, ID_ORDERS)
        if self.whole_log and (self.hash_rows or self.encodings or not self.embed):
            raise ConfigError(
                "values that are numbered over the whole log have their ids and nothing else: no "
                "hash_rows, log_count, target_mean or target_score"
            )
        if not self.whole_log and (self.modulo or self.ids != "appearance"):
            raise ConfigError("ids and modulo are for values that are numbered over the whole log")

    @property
    def encodings(self) -> tuple[str, ...]:
        """The numbers beside the category that are asked for, by field."""
        return tuple(name for name in ENCODINGS if getattr(self, name))


ENCODINGS = ("log_count", "target_mean", "target_score")
"""Fields of `Values` that put a number beside a category."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    """As the header has it."""
    kind: Kind
    """What it is."""
    scale: Scale = "standard"
    """Number: as it is; with mean 0 and deviation 1; the same after a logarithm of its size;
    log(1 + x), where what is missing or negative is 0; or its rank among the training rows. 0
    stands for missing."""
    buckets: int = 0
    """Number: also a category of so many quantile buckets, and one for missing; 0 for none."""
    dense: bool = True
    """Number: whether it is a number to the model, or only its buckets are."""
    missing_flag: bool = False
    """Number: another number beside it, 1 where it is missing."""
    time: bool = False
    """Number: a time, in seconds; texts are such as `2024-01-31` or `2024-01-31 12:00:00`."""
    separator: str = "|"
    """List and sequence: what stands between its values in a text file."""
    max_length: int = 0
    """Sequence: values that are kept of a longer one, the newest, which are the last; 0 for all."""
    table: str = ""
    """Category, list and sequence: columns that name the same table share it and its values; a
    table may be named as a column is, which then shares it. Empty for a table of its own."""
    values: Values = field(default_factory=Values)
    """Category, list and sequence."""
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
        if self.kind in LISTS and not self.separator:
            raise ConfigError(f"column {self.name}: separator is empty")
        if self.max_length < 0:
            problem = f"column {self.name}: max_length is {self.max_length}"
            raise ConfigError(f"{problem}, expected 0 or more")
        if self.max_length and self.kind != "sequence":
            raise ConfigError(f"column {self.name}: max_length is for sequences, not a {self.kind}")
        if self.kind in LISTS and (self.values.encodings or self.values.whole_log):
            raise ConfigError(
                f"column {self.name}: log_count, target_mean, target_score and whole_log are for "
                "categories, not for lists"
            )

    @property
    def table_name(self) -> str:
        """Name of the table that its values are looked up in."""
        return self.table or self.name


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
            crossed = " and ".join(self.columns) or "nothing"
            raise ConfigError(f"a cross of {crossed}: expected two or three different columns")
        if self.values.whole_log:
            raise ConfigError(f"the cross {self.name}: whole_log is for single columns")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """The schema of a table."""

    labels: tuple[str, ...]
    """The columns to predict, one or more."""
    task: Task = "classification"
    """What the labels are: clicks or not, or any numbers."""
    positive: str | None = None
    """What a label is for a click: a value, or a comparison such as `>= 4`; None where it is 1,
    true, yes or the like."""
    weight: str | None = None
    """The column that says how much each row counts; None for 1 each."""
    columns: tuple[Column, ...] = ()
    """All others, in the order of the table."""
    crosses: tuple[Cross, ...] = ()

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("the schema names no label")
        if self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        if self.task == "regression" and self.positive is not None:
            raise ConfigError(
                f'positive is "{self.positive}", which says what a click is, but the task is '
                "regression: its labels are numbers"
            )
        seen = list(self.labels) + ([self.weight] if self.weight is not None else [])
        seen += [column.name for column in self.columns]
        if twice := [name for name in seen if seen.count(name) > 1]:
            what = "label" if self.labels.count(twice[0]) > 1 else "column"
            raise ConfigError(f"the schema has the {what} {twice[0]} twice")
        self._check_crosses()
        self._check_tables()
        if not self.used():
            raise ConfigError("the schema ignores every column: there is nothing to learn from")

    def _check_crosses(self) -> None:
        known = {column.name: column for column in self.columns}
        crossed: set[frozenset[str]] = set()
        for cross in self.crosses:
            for name in cross.columns:
                if name not in known:
                    raise unknown("column in a cross", name, sorted(known))
                column = known[name]
                if column.kind != "category" and not (column.kind == "number" and column.buckets):
                    raise ConfigError(
                        f"the cross {cross.name}: {name} is of kind {column.kind}; crosses are "
                        "made of categories, and of numbers with buckets"
                    )
            if frozenset(cross.columns) in crossed:
                raise ConfigError(f"the schema has the cross {cross.name} twice")
            crossed.add(frozenset(cross.columns))

    def _check_tables(self) -> None:
        """Raise a ConfigError where columns share a table, but their values are not alike."""
        named = {column.name: column for column in self.columns}
        first: dict[str, Column] = {}
        for column in self.used():
            if column.table and column.kind not in WITH_IDS:
                raise ConfigError(
                    f"column {column.name} is a {column.kind}, and cannot share the table "
                    f"{column.table}: categories, lists and sequences share tables"
                )
            namesake = named.get(column.table) if column.table else None
            if namesake is not None and namesake.kind == "number":
                raise ConfigError(
                    f"column {column.name} cannot share the table of {namesake.name}, which is a "
                    "number: the buckets of numbers are not values of categories"
                )
            if column.kind not in WITH_IDS:
                continue
            other = first.setdefault(column.table_name, column)
            if other is column:
                continue
            for what in ("hash_rows", "min_count", "embed", "whole_log"):
                one, another = (getattr(each.values, what) for each in (other, column))
                if one != another or (what == "embed" and not one) or (what == "whole_log" and one):
                    raise ConfigError(
                        f"columns {other.name} and {column.name} share the table "
                        f"{column.table_name}, but {what} is {_text(one)} for {other.name} and "
                        f"{_text(another)} for {column.name}"
                    )

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)

    def used(self) -> tuple[Column, ...]:
        """Return the columns that are not ignored."""
        return tuple(column for column in self.columns if column.kind != "ignore")

    def sharing(self, table: str) -> tuple[Column, ...]:
        """Return the columns whose values are looked up in a table."""
        return tuple(
            column
            for column in self.used()
            if column.kind in WITH_IDS and column.table_name == table
        )

    @property
    def whole_log(self) -> bool:
        """Whether a category is numbered over all rows, as logs of a known format have it."""
        return any(column.values.whole_log for column in self.columns)

    def on_training_rows(self) -> "Columns":
        """Return the schema with nothing numbered over the whole log: as for any other table."""
        return replace(self, columns=tuple(_on_training_rows(column) for column in self.columns))


def log_columns(
    label: str, numbers: Sequence[str], categories: Sequence[str], *, why: str = ""
) -> Columns:
    """Return the schema of a click log of a known format.

    Numbers are log(1 + x); the values of categories are numbered over the whole log.

    Args:
        label: Column of zeros and ones.
        numbers: Number columns.
        categories: Category columns, of integers or texts.
        why: Who says so.

    """
    values = Values(whole_log=True)
    return Columns(
        labels=(label,),
        columns=(
            *(Column(name=name, kind="number", scale="log1p", why=why) for name in numbers),
            *(Column(name=name, kind="category", values=values, why=why) for name in categories),
        ),
    )


def _on_training_rows(column: Column) -> Column:
    if column.kind == "number" and column.scale == "log1p":
        return replace(column, scale="log")
    if column.values.whole_log:
        # Values seen once teach the row that unseen values will share.
        return replace(column, values=Values(min_count=max(2, column.values.min_count)))
    return column


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def names_of(record: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(each.name for each in fields(record))
