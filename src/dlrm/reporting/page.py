"""The report of a run: one file that needs no other, and no network.

In: a run directory. Out: report.html in it, whole or not there. A record is read from the files,
each section turns it into HTML, and the charts are drawn into it.
"""

from pathlib import Path

from dlrm.errors import RunError
from dlrm.files import write_bytes
from dlrm.reporting import (
    column_figure,
    dataset,
    masthead,
    members,
    next_commands,
    result,
    score_figures,
    settings,
    training_figures,
)
from dlrm.reporting.document import document
from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.record import Record, read


def render(record: Record) -> str:
    """Return the page for a record; equal records give equal pages."""
    return document(
        f"{record.recipe}: dlrm run report",
        masthead.head(record),
        element(
            "main",
            *_measured(record),
            dataset.section(record),
            settings.section(record),
            next_commands.section(record),
        ),
    )


def _measured(record: Record) -> list[Html | None]:
    """Return the sections about what was measured; of several labels one for each."""
    training = _charts("Training", training_figures.section(record))
    if len(record.labels) == 1:
        title = "Predictions" if record.task == "regression" else "Scores"
        figures = join(score_figures.section(record), column_figure.figure_of(record))
        scores = _charts(title, figures)
        return [result.section(record), members.section(record), training, scores]
    sections = [
        element(
            "section",
            element("h2", f"Label {one.labels[0]}"),
            *result.tables(one),
            element(
                "div",
                training_figures.of_label(one),
                score_figures.section(one),
                column_figure.figure_of(one),
                class_="grid",
            ),
        )
        for one in record.by_label
    ]
    return [*sections, members.section(record), training]


def _charts(title: str, figures: Html) -> Html:
    return element("section", element("h2", title), element("div", figures, class_="grid"))


def write(run_path: Path | str) -> Path:
    """Write the report of a run and return where it is.

    Args:
        run_path: A run directory, finished or not.

    Raises:
        RunError: It is not a run directory, one of its files is not JSON, or the report cannot be
            written there.
        MissingExtraError: matplotlib is not installed.

    """
    folder = Path(run_path)
    page = render(read(folder)).encode("utf-8", "replace")
    target = folder / "report.html"
    try:
        write_bytes(target, page)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror}") from error
    return target
