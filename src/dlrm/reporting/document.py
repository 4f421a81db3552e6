"""A page: one HTML file that needs no other, and no network."""

import base64
import hashlib
from importlib.resources import files

from dlrm.reporting.markup import Html, element, join


def document(title: str, *body: Html) -> str:
    """Return a page with this project's style; equal bodies give equal pages."""
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
        element("title", title),
        element("style", Html(style)),
    )
    page = element("body", *body, element("script", Html(script)))
    return join(Html("<!DOCTYPE html>\n"), element("html", top, page, lang="en"), Html("\n"))
