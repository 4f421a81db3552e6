"""`dlrm data describe`: what is in a prepared dataset."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.data.describe import features, splits
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
    splits: list[dict[str, Any]]
    """See `dlrm.data.describe`."""
    features: list[dict[str, Any]]
    columns: list[dict[str, str]]
    """What the columns of a table were taken for, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers JSON-ready."""
        return {**asdict(self), "path": str(self.path)}

    def __rich__(self) -> RenderableType:
        left_out = f", {self.bad_rows:,} bad rows left out" if self.bad_rows else ""
        left_out += f", {self.unused_rows:,} in no split" if self.unused_rows else ""
        checked = ", every hash is right" if self.verified else ""
        title = f"{self.path}: source {self.source}, {self.rows:,} rows{left_out}{checked}"
        labels = [_labels(split) for split in self.splits]
        heads = [f"{name}: {key}" if name else key for name, key in labels[0]]
        rows = terminal.table(title, "split", "rows", *(head.replace("_", " ") for head in heads))
        for split, known in zip(self.splits, labels, strict=True):
            rows.add_row(split["name"], f"{split['rows']:,}", *map(_text, known.values()))
        numbers = terminal.table("Numbers", "feature", "missing")
        tables = terminal.table("Categories", "feature", "values", "missing", "rare")
        tables.add_column("first ids: value, count, share", overflow="fold")
        for feature in self.features:
            missing = f"{feature['missing_rate']:.2%}"
            if feature["values"] is None:
                numbers.add_row(feature["name"], missing)
                continue
            head = "\n".join(
                f"{'(missing)' if value['value'] is None else value['value']:<9} "
                f"{value['count']:>9,} {value['share']:>7.2%}"
                for value in feature["head"]
            )
            rare = f"{feature['rare']:,}" if feature["rare"] else "-"
            tables.add_row(feature["name"], f"{feature['values']:,}", missing, rare, head)
        taken = Table(title="Columns", title_justify="left")
        for head in ("column", "taken for", "because"):
            taken.add_column(head, overflow="fold")
        for column in self.columns:
            taken.add_row(*(Text(column[key]) for key in ("name", "taken_for", "why")))
        shown = [grid for grid in (taken, numbers, tables) if grid.row_count]
        return Group(rows, *shown)


def _labels(split: dict[str, Any]) -> dict[tuple[str, str], float | None]:
    """Return a split's numbers by label, of which an only one has no name, and by what they are."""
    plain = {key: value for key, value in split.items() if key not in ("name", "rows", "labels")}
    labels = split.get("labels", {"": plain})
    return {(name, key): value for name, known in labels.items() for key, value in known.items()}


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
