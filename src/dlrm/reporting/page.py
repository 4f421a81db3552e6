"""Pages: what they are made of, and how they become one HTML file that needs no network.

A page gathers what it shows in parts, as plain text and numbers; the templates beside this file
turn them into HTML, in which all text is escaped. A part is a `Figure`, a `Table`, `Lines`, a text,
or a list of figures or tables that stand beside each other; each has a macro in
`templates/parts.html`. What one page alone has stands in a template of its own, which extends
`page.html` and reads `more`.
"""

import base64
import hashlib
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from dlrm.errors import MissingExtraError
from dlrm.files import write_bytes
from dlrm.reporting.charts.drawing import PALETTE
from dlrm.reporting.words import number, percent

TEMPLATES = Path(__file__).with_name("templates")


class Cell(NamedTuple):
    """A cell of a table that is more than its text."""

    text: str
    small: str = ""
    """Stands below it."""
    strong: bool = False
    value: float | None = None
    """What rows are sorted by."""
    bar: float | None = None
    """Length of a bar beside the text, from 0 to 1."""
    span: int = 1
    """Columns that it covers."""


class Table(NamedTuple):
    """A table that scrolls by itself where a screen is too narrow for it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    numbers: Collection[str] = ()
    """The heads above columns of numbers, which stand to the right."""
    caption: str = ""
    summary: str = ""
    """Where there is one, the table folds away below it."""
    shown: bool = False
    """Whether a table that folds away is open at first."""
    named: int | None = 0
    """Column that names the rows."""
    sorted_by: str = ""
    """The head by which the rows come sorted, largest first; a click on a head sorts them anew."""
    code: bool = False
    """Whether names are code."""


class Lines(NamedTuple):
    """Lines of code or of text, folded away below a summary."""

    summary: str
    lines: Sequence[str]
    shown: bool = True


class Section(NamedTuple):
    """A heading and the parts below it; one without parts is left out."""

    title: str
    parts: Sequence[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page: its head, and its sections."""

    kind: str
    """The command that writes it."""
    title: str
    about: str
    """What was measured and on what, in a line."""
    verdict: str
    """What came out, in a sentence or some."""
    sections: Sequence[Section]
    window: str = ""
    """Title of the window; by default title and kind."""
    notices: Sequence[str] = ()
    template: str = "page.html"
    """File of the templates' folder."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What its template reads besides."""
    scripts: Sequence[str] = ("page.js",)
    """Files of the templates' folder."""


def render(page: Page) -> str:
    """Return the HTML of a page; equal pages give equal HTML.

    Raises:
        MissingExtraError: Jinja2 is not installed.

    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("report.html", "report") from error
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda part: type(part).__name__.lower()
    environment.filters.update(data=data, number=number, percent=percent, shell=shlex.join)
    environment.tests["known"] = isfinite
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in page.scripts]
    return environment.get_template(page.template).render(
        page=page,
        palette=PALETTE,
        scripts=scripts,
        # No script but these runs, whatever the names in a run say
        hashes=[base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts],
        **page.more,
    )


def save(page: Page, path: Path) -> Path:
    """Write a page into a file, whole or not at all, and return where it is."""
    write_bytes(path, render(page).encode("utf-8", "replace"))
    return path


def data(values: Sequence[Any]) -> str:
    """Return values as JSON, one a line, that cannot end the script element that it stands in."""
    lines = ",\n".join(json.dumps(_plain(value), allow_nan=False) for value in values)
    safe = lines.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f"[\n{safe}\n]"


def _plain(value: Any) -> Any:
    """Return a value that JSON has words for."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value
