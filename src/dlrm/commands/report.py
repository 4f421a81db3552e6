"""`dlrm report RUN`: write the report of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.text import Text
from tyro.conf import Positional, arg

from dlrm import reporting
from dlrm.terminal import human_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportResult:
    """A written report."""

    report: Path
    """The file: open it in any browser."""
    report_bytes: int
    """Size of the file."""

    def to_dict(self) -> dict[str, Any]:
        """Return this result as JSON-ready values."""
        return {"report": str(self.report), "report_bytes": self.report_bytes}

    def __rich__(self) -> Text:
        return Text(f"{self.report}  {human_bytes(self.report_bytes)}")


def report(run: Annotated[Positional[Path | str], arg(metavar="RUN")]) -> ReportResult:
    """Write report.html of a run: curves, scores, data and settings in one offline file.

    Args:
        run: The run directory, finished or not.

    """
    file = reporting.write(Path(run))
    return ReportResult(report=file, report_bytes=file.stat().st_size)
