"""What becomes of the columns of a table: the schema that is inferred, edited and given back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from dlrm.data.features.column import WITH_IDS, Column, Cross, Values
from dlrm.data.features.number_text import check_format
from dlrm.data.features.texts import NumberReading
from dlrm.errors import ConfigError, unknown
from dlrm.schema import Task

TASKS: tuple[Task, ...] = get_args(Task)


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
    label_format: str = ""
    """How labels that are numbers are written, as 1,234.5 or 1234.5 %; see `number_text`."""
    weight_format: str = ""
    """How weights are written."""
    missing: tuple[str, ...] = ()
    """Texts that are missing in every column, beside empty ones."""
    usual_missing: bool = True
    """Whether what Excel, pandas, R and databases write for missing, such as `n/a`, is missing in
    numbers, times and labels; in categories and lists it is a value like any other."""
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
        for text_format in (self.label_format, self.weight_format):
            check_format(text_format)
        names = list(self.labels) + ([self.weight] if self.weight is not None else [])
        names += [column.name for column in self.columns]
        if twice := [name for name in names if names.count(name) > 1]:
            what = "label" if self.labels.count(twice[0]) > 1 else "column"
            raise ConfigError(f"the schema has the {what} {twice[0]} twice")
        self._check_crosses()
        self._check_tables()
        if not self.used():
            raise ConfigError("the schema ignores every column: there is nothing to learn from")

    def _check_crosses(self) -> None:
        known = {column.name: column for column in self.columns}
        for place, cross in enumerate(self.crosses):
            for name in cross.columns:
                if name not in known:
                    raise unknown("column in a cross", name, sorted(known))
                kind = known[name].kind
                if kind != "category" and not (kind == "number" and known[name].buckets):
                    raise ConfigError(
                        f"the cross {cross.name}: {name} is of kind {kind}; crosses are made of "
                        "categories, and of numbers with buckets"
                    )
            if any(set(cross.columns) == set(other.columns) for other in self.crosses[:place]):
                raise ConfigError(f"the schema has the cross {cross.name} twice")

    def _check_tables(self) -> None:
        """Raise a ConfigError where columns share a table, but their values are not alike."""
        kinds = {column.name: column.kind for column in self.columns}
        first: dict[str, Column] = {}
        for column in self.used():
            if column.table and column.kind not in WITH_IDS:
                raise ConfigError(
                    f"column {column.name} is a {column.kind}, and cannot share the table "
                    f"{column.table}: categories, lists and sequences share tables"
                )
            if column.table and kinds.get(column.table) == "number":
                raise ConfigError(
                    f"column {column.name} cannot share the table of {column.table}, which is a "
                    "number: the buckets of numbers are not values of categories"
                )
            other = first.setdefault(column.table_name, column)
            if other is column or column.kind not in WITH_IDS:
                continue
            # Those that share one have embeddings, and ids that follow the training rows.
            for what, needed in {
                "hash_rows": other.values.hash_rows,
                "min_count": other.values.min_count,
                "embed": True,
                "whole_log": False,
            }.items():
                value, column_value = (getattr(sharer.values, what) for sharer in (other, column))
                if {value, column_value} != {needed}:
                    raise ConfigError(
                        f"columns {other.name} and {column.name} share the table "
                        f"{column.table_name}, but {what} is {_text(value)} for {other.name} and "
                        f"{_text(column_value)} for {column.name}"
                    )

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)

    def reading(self, column: Column) -> NumberReading:
        """Return how the values of a number column become numbers."""
        return NumberReading(column.format, column.time, self.usual_missing)

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
