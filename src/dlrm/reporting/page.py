"""Pages: how a template and what it shows become one HTML file that needs no network.

A page is a template of its own, which holds its words and tables and extends `page.html`, and the
numbers and figures that the template reads. All text is escaped.
"""

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from dlrm.errors import MissingExtraError
from dlrm.files import write_bytes
from dlrm.reporting import words
from dlrm.reporting.charts.drawing import PALETTE
from dlrm.terminal import human_bytes

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page: its head, and what stands below it."""

    kind: str
    """The command that writes it."""
    title: str
    about: str
    """What was measured and on what, in a line."""
    verdict: str
    """What came out, in a sentence or some."""
    template: str
    """File of the templates' folder."""
    shown: Mapping[str, Any]
    """What the template reads, by name."""
    notices: Sequence[str] = ()
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
    environment.filters |= {
        name: getattr(words, name)
        for name in ("number", "percent", "duration", "rate", "signed", "interval")
    }
    environment.filters |= {"data": data, "shell": shlex.join, "size": human_bytes}
    environment.tests["known"] = isfinite
    environment.globals["METRICS"] = words.METRICS
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in page.scripts]
    return environment.get_template(page.template).render(
        page=page,
        palette=PALETTE,
        scripts=scripts,
        # No script but these runs, whatever the names in a run say
        hashes=[base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts],
        **page.shown,
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
