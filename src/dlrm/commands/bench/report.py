"""`dlrm bench report FILES`: files of results as one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Group, RenderableType
from rich.text import Text
from tyro.conf import Positional, arg

from dlrm.bench.diff import naming
from dlrm.bench.figure import key
from dlrm.bench.results import load
from dlrm.errors import ConfigError
from dlrm.reporting import bench as page
from dlrm.terminal import human_bytes

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReportResult:
    """A written page of benchmarks."""

    html: Path
    """The file: open it in any browser."""
    html_bytes: int
    rows: int
    """Rows that are drawn from."""
    older: int
    """Rows that a newer one of the same setting stands for."""
    machines: tuple[str, ...]
    headline: str
    """What the rows say, in a sentence."""

    def to_dict(self) -> dict[str, Any]:
        """Return this result JSON-ready."""
        return {
            "html": str(self.html),
            "html_bytes": self.html_bytes,
            "rows": self.rows,
            "older": self.older,
            "machines": list(self.machines),
            "headline": self.headline,
        }

    def __rich__(self) -> RenderableType:
        lines = [Text(f"{self.html}  {human_bytes(self.html_bytes)}"), Text(self.headline)]
        if self.older:
            lines.append(Text(f"{self.older} rows were measured again, and left out."))
        if len(self.machines) > 1:
            lines.append(Text(f"Across machines: {' and '.join(self.machines)}"))
        return Group(*lines)


def bench_report(
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILES")],
    *,
    html: Path = Path("bench.html"),
    across_machines: bool = False,
) -> BenchReportResult:
    """Draw files of results as one page: verdicts, rooflines, what-if sliders, accuracy of bits.

    The page is one file that needs no network; the rows are in it. The files are those that
    `--out` of dlrm bench machine, train, infer, ops, numerics and serve wrote, in any mixture. Of
    rows that measured the same the newest counts.

    Args:
        files: Files of rows, one or more.
        html: The page to write.
        across_machines: Draw rows of different hardware on one page.

    Raises:
        InputError: A file holds something else than rows, or nothing.
        ConfigError: There is no file, or rows are of different machines.
        MissingExtraError: matplotlib is not installed.

    """
    if not files:
        raise ConfigError("no file of results was named, expected one or more")
    sides = [load(path) for path in files]
    every = [row for rows in sides for row in rows]
    name = naming((every, ()))
    machines = {
        str(path): tuple(dict.fromkeys(map(name, rows)))
        for path, rows in zip(files, sides, strict=True)
    }
    names_of_all = tuple(dict.fromkeys(name for names in machines.values() for name in names))
    if len(names_of_all) > 1 and not across_machines:
        where = "; ".join(f"{path}: {' and '.join(names)}" for path, names in machines.items())
        raise ConfigError(
            f"rows were measured on {len(names_of_all)} machines ({where}). "
            "They are drawn on one page with --across-machines"
        )
    rows = newest(every)
    written = page.write(html, rows)
    return BenchReportResult(
        html=written,
        html_bytes=written.stat().st_size,
        rows=len(rows),
        older=len(every) - len(rows),
        machines=names_of_all,
        headline=page.headline(rows),
    )


def newest(rows: Sequence[Row]) -> list[Row]:
    """Return of rows that measured the same on one machine the newest, in order."""
    latest: dict[tuple[str, str], Row] = {}
    for row in rows:
        same = (str(row.get("machine", row.get("cpu"))), key(row))
        if same not in latest or str(row.get("taken", "")) >= str(latest[same].get("taken", "")):
            latest[same] = row
    return list(latest.values())
