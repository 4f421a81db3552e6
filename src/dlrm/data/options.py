"""How raw data are prepared, and what that makes."""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import tyro

from dlrm.data.bad_rows import OnBadRow
from dlrm.data.split import PROTOCOLS, Protocol, sizes
from dlrm.data.store import Dataset
from dlrm.data.tabular.columns import FeaturesConfig
from dlrm.data.vocabulary import ID_ORDERS, IdOrder
from dlrm.errors import ConfigError, unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """How a raw log becomes a dataset."""

    split: Protocol | Literal["auto"] = "auto"
    """Which rows train, validate and test, see dlrm.data.split; auto is kaggle for logs and random
    for tables. Files named train, valid and test in a folder are the splits themselves."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Train, validation and test, as fractions or row counts; for `chronological` and `random`."""
    seed: int = 0
    """Of the `random` split."""
    ids: IdOrder = "appearance"
    """Logs: ids by first appearance in the whole log, or by frequency."""
    min_count: int = 1
    """Logs: values seen fewer times in the whole log share the row "other"."""
    max_rows_per_table: int | None = None
    """Logs: values are taken modulo this number first; None leaves them."""
    bad_rows: OnBadRow = "error"
    """Stop at a row that is not what it should be, or count it and go on."""
    label: Annotated[str | None, tyro.conf.arg(aliases=["--label"])] = None
    """Tables: the column to predict."""
    positive: Annotated[str | None, tyro.conf.arg(aliases=["--positive"])] = None
    """Tables: what the label is for a click, a value or a comparison such as ">= 4"; recognised
    where it is 1, true, yes or the like."""
    schema: Annotated[str | None, tyro.conf.arg(aliases=["--schema"])] = None
    """Tables: a file that says what each column is, as `dlrm data infer` writes it; otherwise it is
    inferred."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Tables, and logs where anything is set: what becomes of the columns."""

    def __post_init__(self) -> None:
        if self.split not in (*PROTOCOLS, "auto"):
            raise unknown("split", self.split, (*PROTOCOLS, "auto"))
        if self.ids not in ID_ORDERS:
            raise unknown("order of ids", self.ids, ID_ORDERS)
        if self.min_count < 1:
            raise ConfigError(f"min_count is {self.min_count}, expected 1 or more")
        if self.max_rows_per_table is not None and not 1 <= self.max_rows_per_table < 2**31:
            problem = f"max_rows_per_table is {self.max_rows_per_table}"
            raise ConfigError(f"{problem}, expected a number from 1 to 2147483647")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more")
        # Row counts are compared with the log when its rows are known.
        sizes(2**62, self.fractions)

    def protocol(self, default: Protocol) -> Protocol:
        """Return the split protocol; `default` where none was chosen."""
        return default if self.split == "auto" else self.split

    def options(self) -> dict[str, Any]:
        """Return what changes a prepared log, JSON-ready; None where a setting does not matter."""
        return {
            **self._division("kaggle"),
            "ids": self.ids,
            "min_count": self.min_count,
            "max_rows_per_table": self.max_rows_per_table,
        }

    def table_options(self) -> dict[str, Any]:
        """Return what changes a prepared table, JSON-ready, but for the schema.

        Raises:
            ConfigError: A setting is for logs only.

        """
        for name, instead in (
            ("ids", "ids follow the training rows"),
            ("min_count", "use prepare.features.min_count"),
            ("max_rows_per_table", "use prepare.features.hash_rows"),
        ):
            if getattr(self, name) != getattr(PrepareConfig(), name):
                problem = f"prepare.{name} is for logs of a known format, not for tables"
                raise ConfigError(f"{problem}: {instead}")
        return {
            **self._division("random"),
            "label": self.label,
            "positive": self.positive,
            "bad_rows": self.bad_rows,
            "features": json.loads(json.dumps(asdict(self.features))),
        }

    def check_for_log(self) -> None:
        """Raise a ConfigError if a setting is for tables only."""
        for name in ("label", "positive", "schema"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"prepare.{name} is {getattr(self, name)}, but the format of these data "
                    "is known: it says what each column is"
                )

    def _division(self, default: Protocol) -> dict[str, Any]:
        protocol = self.protocol(default)
        divided = protocol in ("chronological", "random")
        return {
            "split": protocol,
            "fractions": [float(share) for share in self.fractions] if divided else None,
            "seed": self.seed if protocol == "random" else None,
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` made or found."""

    dataset: Dataset
    reused: bool
    """Whether a finished dataset was found and nothing had to be done."""
