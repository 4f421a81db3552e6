"""A schema as a table on the terminal, with the reason for each decision."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.data.features.column import WITH_IDS, Column, Values
from dlrm.data.features.columns import Columns

MOST, MOST_CROSSES = 60, 10


def show(schema: Columns) -> None:
    """Print what the columns are taken for to standard error."""
    terminal.err.print(grid(schema))


def grid(schema: Columns) -> Table:
    """Return the table: column, what it is, why."""
    several = len(schema.labels) > 1
    title = f"Columns; the label{'s are' if several else ' is'} {', '.join(schema.labels)}"
    title += f"; the weight is {schema.weight}" if schema.weight is not None else ""
    grid = Table(title=Text(title), title_justify="left")
    for head in ("column", "taken for", "because"):
        grid.add_column(head, overflow="fold")
    lines = described(schema)
    columns, crosses = lines[: len(schema.columns)], lines[len(schema.columns) :]
    for some, most, kind in ((columns, MOST, "columns"), (crosses, MOST_CROSSES, "crosses")):
        for line in some[:most]:
            # As texts, because a name in brackets would be taken for markup.
            grid.add_row(*(Text(line[key]) for key in ("name", "taken_for", "why")))
        if len(some) > most:
            grid.add_row(f"... and {len(some) - most} more {kind}", "", "see dlrm data infer")
    return grid


def described(schema: Columns) -> list[dict[str, str]]:
    """Return the columns, then the crosses: `name`, `kind`, `taken_for`, `why`."""
    lines = [
        (column.name, column.kind, _words(column), column.why or "the schema says so")
        for column in schema.columns
    ]
    lines += [
        (cross.name, "cross", ["cross", *_values(cross.values)], cross.why or "asked for")
        for cross in schema.crosses
    ]
    return [
        {"name": name, "kind": kind, "taken_for": ", ".join(words), "why": why}
        for name, kind, words, why in lines
    ]


_SCALED = {"none": "", "standard": "standardised", "quantile": "ranked"}


def _words(column: Column) -> list[str]:
    """Return what a column is taken for, in a few words."""
    if column.kind == "number":
        words = ["time" if column.time else "number"]
        if column.dense:
            bins = f"{column.bins} bins"
            words.append(
                bins if column.scale == "piecewise" else _SCALED.get(column.scale, column.scale)
            )
        else:
            words = ["number in buckets"]
        words.append(f"{column.buckets} buckets" if column.buckets else "")
        words.append("flag where missing" if column.missing_flag else "")
        return [word for word in words if word]
    words: list[str] = [column.kind]
    if column.kind in WITH_IDS:
        words += [f"the newest {column.max_length}"] if column.max_length else []
        words += _values(column.values)
        words += [f"table {column.table}"] if column.table else []
    return words


def _values(values: Values) -> Iterable[str]:
    if values.hash_rows:
        yield f"hashed into {values.hash_rows:,}"
    elif values.whole_log:
        yield "numbered over the whole log"
    if not values.hash_rows and values.min_count > 1 and values.embed:
        yield f"values seen {values.min_count} times or more"
    if not values.embed:
        yield "no embedding"
    yield from (name.replace("_", " ") for name in values.encodings)
