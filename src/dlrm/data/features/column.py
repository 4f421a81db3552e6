"""What becomes of one column of a table, or of a cross of several, and of their values.

A column is a number, a category, a list or a sequence of categories, or ignored; a cross is the
combination of two or three categories, which is a category itself.
"""

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from dlrm.data.features.number_text import check_format
from dlrm.data.features.time_text import check_time_format
from dlrm.data.vocabulary import ID_ORDERS, IdOrder
from dlrm.errors import ConfigError, unknown

Kind = Literal["number", "category", "list", "sequence", "ignore"]
Scale = Literal["none", "standard", "log", "log1p", "quantile", "piecewise"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SCALES: tuple[Scale, ...] = get_args(Scale)
LISTS: tuple[Kind, ...] = ("list", "sequence")
WITH_IDS: tuple[Kind, ...] = ("category", *LISTS)
CROSS_NAME = " x "
MOST_CROSSED = 3
MOST_BINS = 64
ENCODINGS = ("log_count", "target_mean", "target_score")
"""Fields of `Values` that put a number beside a category."""


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
    """Folds of target means: a training row's leaves out its whole fold."""
    prior: float = 10.0
    """Prior of target means: rows at the overall mean that are added to those of each value."""
    whole_log: bool = False
    """Raw values are numbered over all rows of a log, not over the training rows alone."""
    ids: IdOrder = "appearance"
    """Order of ids that are numbered over a whole log: first appearance, or frequency."""
    modulo: int = 0
    """Number that values of a whole log are taken modulo first; 0 leaves them."""

    def __post_init__(self) -> None:
        _expect(self.folds >= 2, "folds", self.folds, "2 or more")
        _expect(0 < self.prior < float("inf"), "prior", self.prior, "a positive number")
        _expect(self.min_count >= 1, "min_count", self.min_count, "1 or more")
        rows = self.hash_rows
        _expect(not rows or 2 <= rows < 2**31, "hash_rows", rows, "0 or at least 2")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of the table."""

    name: str
    """Name of the column in the header."""
    kind: Kind
    """What it is."""
    scale: Scale = "standard"
    """Number: as it is; with mean 0 and deviation 1; the same after a logarithm of its size;
    log(1 + x), where what is missing or negative is 0; or its rank among the training rows. 0
    stands for missing. Or piecewise: as several numbers, so that a linear layer is a function that
    bends at quantiles and at frequent values of the training rows."""
    bins: int = MOST_BINS
    """Number of scale piecewise: numbers it becomes at most."""
    buckets: int = 0
    """Number: also a category of so many quantile buckets, and one for missing; 0 for none."""
    dense: bool = True
    """Number: whether it is a number to the model, or only its buckets are."""
    missing_flag: bool = False
    """Number: another number beside it, 1 where it is missing."""
    time: bool = False
    """Number: a time, in seconds; texts are such as `2024-01-31` or `2024-01-31 12:00:00`."""
    calendar: bool = False
    """Number that is a time: its hour and weekday are categories beside it, and how long before the
    newest training row it was is a number, where the training rows differ in them."""
    format: str = ""
    """Number: how its texts are written, as 1,234.5 or $1.234,5; of a time, e.g. `month first`."""
    separator: str = "|"
    """List and sequence: what stands between its values in a text file; `[]` where each is a list
    as Python and JSON write it, such as `["a", "b"]`."""
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
        where, buckets = f"column {self.name}: ", self.buckets
        if self.kind not in KINDS:
            raise unknown(f"kind of column {self.name}", self.kind, KINDS)
        if self.scale not in SCALES:
            raise unknown(f"scale of column {self.name}", self.scale, SCALES)
        good = not buckets or 2 <= buckets <= 100_000
        _expect(good, f"{where}buckets", buckets, "0 or from 2 to 100000")
        _expect(2 <= self.bins <= 1024, f"{where}bins", self.bins, "from 2 to 1024")
        _expect(self.max_length >= 0, f"{where}max_length", self.max_length, "0 or more")
        try:
            (check_time_format if self.time else check_format)(self.format)
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from error
        if self.calendar and not self.time:
            raise ConfigError(f"{where}calendar is for times; set time = true")
        if self.kind == "number" and not self.dense and not buckets:
            raise ConfigError(
                f"column {self.name} has neither a number nor buckets: set kind to ignore"
            )
        if self.kind in LISTS and not self.separator:
            raise ConfigError(f"{where}separator is empty")
        if self.max_length and self.kind != "sequence":
            raise ConfigError(f"{where}max_length is for sequences, not a {self.kind}")
        if self.kind in LISTS and (self.values.encodings or self.values.whole_log):
            raise ConfigError(
                f"{where}log_count, target_mean, target_score and whole_log are for categories, "
                "not for lists"
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


def _expect(good: bool, name: str, value: float, expected: str) -> None:
    """Raise a ConfigError unless a setting is as expected."""
    if not good:
        raise ConfigError(f"{name} is {value}, expected {expected}")


def names_of(record: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields."""
    return tuple(field_.name for field_ in fields(record))
