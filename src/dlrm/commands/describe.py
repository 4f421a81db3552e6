"""`dlrm data describe`: what is in a prepared dataset."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.data.describe import FeatureNumbers, LabelNumbers, SplitNumbers, features, splits
from dlrm.data.features.features import Features
from dlrm.data.store import Dataset
from dlrm.data.store import verify as verify_dataset
from dlrm.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeResult:
    """A prepared dataset in numbers."""

    path: Path
    source: str
    rows: int
    bad_rows: int
    """Rows left out because they were not what they should be."""
    unused_rows: int
    """Good rows that are in no split."""
    verified: bool
    splits: list[SplitNumbers]
    features: list[FeatureNumbers]
    columns: list[dict[str, str]]
    """What the columns of a table were taken for, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers JSON-ready."""
        return {
            "path": str(self.path),
            "source": self.source,
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "unused_rows": self.unused_rows,
            "verified": self.verified,
            "splits": [_split(split) for split in self.splits],
            "features": [asdict(feature) for feature in self.features],
            "columns": self.columns,
        }

    def __rich__(self) -> RenderableType:
        left_out = f", {self.bad_rows:,} bad rows left out" if self.bad_rows else ""
        left_out += f", {self.unused_rows:,} in no split" if self.unused_rows else ""
        checked = ", every hash is right" if self.verified else ""
        title = f"{self.path}: source {self.source}, {self.rows:,} rows{left_out}{checked}"
        labels = [(label.name, _known(label)) for label in self.splits[0].labels]
        heads = [
            f"{name}: {key.replace('_', ' ')}" if len(labels) > 1 else key.replace("_", " ")
            for name, known in labels
            for key in known
        ]
        rows = terminal.table(title, "split", "rows", *heads)
        for split in self.splits:
            values = [_text(value) for label in split.labels for value in _known(label).values()]
            rows.add_row(split.name, f"{split.rows:,}", *values)
        numbers = terminal.table("Numbers", "feature", "missing")
        tables = terminal.table("Categories", "feature", "values", "missing", "rare")
        tables.add_column("first ids: value, count, share", overflow="fold")
        for feature in self.features:
            missing = f"{feature.missing_rate:.2%}"
            if feature.values is None:
                numbers.add_row(feature.name, missing)
                continue
            head = "\n".join(
                f"{'(missing)' if value.value is None else value.value:<9} "
                f"{value.count:>9,} {value.share:>7.2%}"
                for value in feature.head
            )
            rare = f"{feature.rare:,}" if feature.rare else "-"
            tables.add_row(feature.name, f"{feature.values:,}", missing, rare, head)
        taken = Table(title="Columns", title_justify="left")
        for head in ("column", "taken for", "because"):
            taken.add_column(head, overflow="fold")
        for column in self.columns:
            taken.add_row(*(Text(column[key]) for key in ("name", "taken_for", "why")))
        shown = [grid for grid in (taken, numbers, tables) if grid.row_count]
        return Group(rows, *shown)


def _split(split: SplitNumbers) -> dict[str, Any]:
    """Return a split JSON-ready: the numbers of its first label, and of each where it has more."""
    labels = {label.name: _known(label) for label in split.labels}
    several = {"labels": labels} if len(labels) > 1 else {}
    return {"name": split.name, "rows": split.rows, **labels[split.labels[0].name], **several}


def _known(label: LabelNumbers) -> dict[str, float | None]:
    """Return the numbers that a label of its kind has."""
    if label.positives is not None:
        return {"positives": label.positives, "positive_rate": label.positive_rate}
    return {"mean": label.mean, "min": label.min, "max": label.max}


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def describe(
    dataset: Annotated[Path | str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")],
    *,
    head: int = 5,
    verify: bool = False,
) -> DescribeResult:
    """Show what is in a prepared dataset.

    Args:
        dataset: Its folder.
        head: How many values of each category to show, by id.
        verify: Read everything and compare it with its hashes.

    Raises:
        DatasetError: It is not a prepared dataset, or a file was altered.

    """
    if head < 0:
        raise ConfigError(f"head is {head}, expected 0 or more")
    opened = Dataset.open(dataset)
    if verify:
        verify_dataset(opened)
    return DescribeResult(
        path=opened.path,
        source=opened.source,
        rows=opened.manifest["rows"],
        bad_rows=opened.manifest["bad_rows"]["total"],
        unused_rows=opened.manifest["unused_rows"],
        verified=verify,
        splits=splits(opened),
        features=features(opened, Features.load(opened.path), head),
        columns=opened.columns,
    )
