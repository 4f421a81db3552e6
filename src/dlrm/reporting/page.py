"""The report of a run: one file that needs no other, and no network.

In: a run directory. Out: report.html in it, whole or not there. A record is read from the files,
each section turns it into HTML, and the charts are drawn into it.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from dlrm.errors import RunError
from dlrm.files import write_bytes
from dlrm.reporting import (
    dataset,
    making,
    masthead,
    onwards,
    result,
    score_figures,
    training_figures,
)
from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.record import Record, read


def render(record: Record) -> str:
    """Return the page for a record; equal records give equal pages."""
    here = files("dlrm.reporting")
    style, script = (
        (here / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is loaded, and no script but this one runs, whatever the names in a run say
    policy = "; ".join(
        (
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{digest}'",
            "img-src data:",
        )
    )
    top = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{record.recipe}: dlrm run report"),
        element("style", Html(style)),
    )
    page = element(
        "body",
        masthead.head(record),
        element(
            "main",
            result.section(record),
            _charts("Training", training_figures.section(record)),
            _charts("Scores", score_figures.section(record)),
            dataset.section(record),
            making.section(record),
            onwards.section(record),
        ),
        element("script", Html(script)),
    )
    return join(Html("<!DOCTYPE html>\n"), element("html", top, page, lang="en"), Html("\n"))


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
