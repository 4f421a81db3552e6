"""How raw data are prepared."""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import tyro

from dlrm.data.features.column import names_of
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.sources.reading import Header, Reading
from dlrm.data.sources.source import OnBadRow
from dlrm.data.split import PROTOCOLS, Protocol, sizes
from dlrm.data.vocabulary import ID_ORDERS, IdOrder
from dlrm.errors import ConfigError, unknown
from dlrm.schema import Task

_OF_LOGS = {
    "ids": "ids follow the training rows",
    "min_count": "use prepare.features.min_count",
    "max_rows_per_table": "use prepare.features.hash_rows",
}
"""Settings of categories that are numbered over a whole log -> what to do elsewhere."""
_OF_ALL = ("split", "fractions", "seed", "bad_rows", "features")
"""Settings of any data; all others are of tables, whose format does not say what a column is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """How raw data become a dataset."""

    split: Annotated[Protocol | Literal["auto"], tyro.conf.arg(aliases=["--split"])] = "auto"
    """Which rows train, validate and test, see dlrm.data.split; auto is kaggle for logs and random
    for tables, or by `time` or `group`. Files named train, valid and test in a folder are the
    splits themselves."""
    time: Annotated[str | None, tyro.conf.arg(aliases=["--time"])] = None
    """Tables: the column of times to divide the rows by: the oldest train, the newest test."""
    group: Annotated[str | None, tyro.conf.arg(aliases=["--group"])] = None
    """Tables: a column, such as the user, of which each value is in one split only."""
    fractions: Annotated[tuple[float, float, float], tyro.conf.arg(aliases=["--fractions"])] = (
        0.8,
        0.1,
        0.1,
    )
    """Train, validation and test, as fractions or row counts; not for `kaggle` and `days`."""
    seed: int = 0
    """Seed of splits at random."""
    ids: IdOrder = "appearance"
    """Logs: ids by first appearance in the whole log, or by frequency."""
    min_count: int = 1
    """Logs: values seen fewer times in the whole log share the row "other"."""
    max_rows_per_table: int | None = None
    """Logs: values are taken modulo this number first; None leaves them."""
    bad_rows: Annotated[OnBadRow, tyro.conf.arg(aliases=["--bad-rows"])] = "error"
    """Stop at a row that is not what it should be, or count it and go on."""
    label: Annotated[
        tuple[str, ...], tyro.conf.arg(aliases=["--label"]), tyro.conf.UseAppendAction
    ] = ()
    """Tables: the column to predict; given several times, several columns."""
    positive: Annotated[str | None, tyro.conf.arg(aliases=["--positive"])] = None
    """Tables: the value of the label that counts as positive, or a comparison such as ">= 4";
    recognised where it is 1, true, yes or the like."""
    task: Annotated[Task | None, tyro.conf.arg(aliases=["--task"])] = None
    """Tables: classification, where a label is positive or not, or regression, where it is any
    number; as the schema says if not given, or else classification."""
    weight: Annotated[str | None, tyro.conf.arg(aliases=["--weight"])] = None
    """Tables: the column that says how much each row counts, a number that is 0 or more."""
    category: Annotated[
        tuple[str, ...], tyro.conf.arg(aliases=["--category"]), tyro.conf.UseAppendAction
    ] = ()
    """Tables: a column that is a category whatever its values look like; may be given several
    times."""
    missing: Annotated[
        tuple[str, ...], tyro.conf.arg(aliases=["--missing"]), tyro.conf.UseAppendAction
    ] = ()
    """Tables: a text that is missing in every column, beside empty ones; may be given several
    times."""
    only_empty_missing: Annotated[bool, tyro.conf.arg(aliases=["--only-empty-missing"])] = False
    """Tables: n/a, NULL, - and the like are not missing in numbers, times and labels."""
    schema: Annotated[str | None, tyro.conf.arg(aliases=["--schema"])] = None
    """Tables: a file that says what each column is, as `dlrm data infer` writes it; otherwise it is
    inferred."""
    separator: Annotated[str | None, tyro.conf.arg(aliases=["--separator"])] = None
    """Tables: what is between fields, such as ";", "::", tab or spaces; None recognises it."""
    header: Annotated[Header, tyro.conf.arg(aliases=["--header"])] = "auto"
    """Tables: whether a line names the columns; without one they are c0, c1, ..."""
    skip_lines: Annotated[int | None, tyro.conf.arg(aliases=["--skip-lines"])] = None
    """Tables: lines above the header; None recognises titles, blank lines and comments."""
    comment: Annotated[str | None, tyro.conf.arg(aliases=["--comment"])] = None
    """Tables: what lines that are no rows begin with."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """What becomes of the columns; fitted on the training rows, also where a log's format would
    have values numbered over the whole of it."""

    def __post_init__(self) -> None:
        if self.split not in (*PROTOCOLS, "auto"):
            raise unknown("split", self.split, (*PROTOCOLS, "auto"))
        for name in ("time", "group"):
            given = getattr(self, name)
            if given is not None and self.split not in ("auto", name):
                raise ConfigError(f"split is {self.split}, but {name} is {given}: leave one out")
            if given is None and self.split == name:
                raise ConfigError(f"split {name} needs the column: --{name} COLUMN")
        if self.time is not None and self.group is not None:
            raise ConfigError("rows are divided by time or by group, not by both")
        if self.ids not in ID_ORDERS:
            raise unknown("order of ids", self.ids, ID_ORDERS)
        if self.min_count < 1:
            raise ConfigError(f"min_count is {self.min_count}, expected 1 or more")
        if self.max_rows_per_table is not None and not 1 <= self.max_rows_per_table < 2**31:
            problem = f"max_rows_per_table is {self.max_rows_per_table}"
            raise ConfigError(f"{problem}, expected a number from 1 to 2147483647")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more")
        if isinstance(self.label, str):
            raise ConfigError(f'label is "{self.label}", expected a tuple of names')
        if twice := [name for name in self.label if self.label.count(name) > 1]:
            raise ConfigError(f"the label {twice[0]} is given twice")
        if self.weight is not None and self.weight in self.label:
            raise ConfigError(f"the column {self.weight} is given as a label and as the weight")
        _ = self.reading
        # Row counts are compared with the log when its rows are known.
        sizes(2**62, self.fractions)

    @property
    def reading(self) -> Reading:
        """How texts of tables are read, as far as it is said."""
        return Reading(**{name: getattr(self, name) for name in names_of(Reading)})

    def check(self, *, fixed: bool, whole_log: bool) -> None:
        """Raise a ConfigError if a setting has no meaning for the data at hand."""
        plain = PrepareConfig()
        for name in names_of(PrepareConfig) if fixed else ():
            if name in _OF_ALL or name in _OF_LOGS:
                continue
            if (value := getattr(self, name)) != getattr(plain, name):
                value = ", ".join(value) if isinstance(value, tuple) else value
                raise ConfigError(
                    f"prepare.{name} is {value}, but the format of these data "
                    "is known: it says what each column is"
                )
        for name, instead in () if whole_log else _OF_LOGS.items():
            if getattr(self, name) != getattr(plain, name):
                what = "where features are fitted on the training rows" if fixed else "for tables"
                problem = f"prepare.{name} is for logs of a known format, not {what}"
                raise ConfigError(f"{problem}: {instead}")

    def protocol(self, default: Protocol) -> Protocol:
        """Return the split protocol; `default` where none was chosen."""
        if self.split != "auto":
            return self.split
        return "time" if self.time else "group" if self.group else default

    def options(self, *, fixed: bool, schema: dict[str, Any] | None) -> dict[str, Any]:
        """Return what changes a dataset, JSON-ready; None where a setting does not matter.

        Args:
            fixed: Whether the format of the data says what each column is.
            schema: That of `schema`, as `toml.to_dict` returns it.

        """
        protocol = self.protocol("kaggle" if fixed else "random")
        divided = protocol not in ("kaggle", "days")
        whole_log = fixed and self.features.unset
        features = None if self.features.unset else json.loads(json.dumps(asdict(self.features)))
        unusual = {
            "category": list(self.category),
            "missing": list(self.missing),
            "only_empty_missing": self.only_empty_missing,
        }
        return {
            "split": protocol,
            "fractions": [float(share) for share in self.fractions] if divided else None,
            "seed": self.seed if protocol in ("random", "group", "stratified") else None,
            "time": self.time,
            "group": self.group,
            "ids": self.ids if whole_log else None,
            "min_count": self.min_count if whole_log else None,
            "max_rows_per_table": self.max_rows_per_table,
            "bad_rows": None if fixed else self.bad_rows,
            "label": list(self.label) or None,
            "positive": self.positive,
            "task": self.task,
            "weight": self.weight,
            "reading": None if self.reading == Reading() else self.reading.to_dict(),
            **{name: value for name, value in unusual.items() if value},
            "schema": schema,
            "features": features,
        }
