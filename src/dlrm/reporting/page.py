"""The report of a run: one file that needs no other, and no network.

In: a run directory. Out: report.html in it, written beside its place and renamed into it, so that
a reader never meets half of one.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from dlrm.files import write_bytes
from dlrm.reporting import figures, sections
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
        sections.body(record, figures.training(record), figures.scores(record)),
        element("script", Html(script)),
    )
    return join(Html("<!DOCTYPE html>\n"), element("html", top, page, lang="en"), Html("\n"))


def write(run_path: Path | str) -> Path:
    """Write the report of a run and return where it is.

    Args:
        run_path: A run directory, finished or not.

    Raises:
        RunError: It is not a run directory, or one of its files is not JSON.
        MissingExtraError: matplotlib is not installed.

    """
    folder = Path(run_path)
    page = render(read(folder)).encode("utf-8", "replace")
    target = folder / "report.html"
    write_bytes(target, page)
    return target
