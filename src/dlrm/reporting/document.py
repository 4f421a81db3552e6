"""A page: one HTML file that needs no other, and no network."""

import base64
import hashlib
from importlib.resources import files

from dlrm.reporting.markup import Html, element, join


def document(title: str, *body: Html, own: str | None = None) -> str:
    """Return a page with this project's style; equal bodies give equal pages.

    Args:
        title: Of the window.
        body: What is seen.
        own: Name of a style sheet and of a script of this page alone, beside those of all pages.

    """
    here = files("dlrm.reporting")
    names = ("page", own) if own else ("page",)
    styles, scripts = (
        [(here / f"{name}.{kind}").read_text(encoding="utf-8").strip() for name in names]
        for kind in ("css", "js")
    )
    # Nothing is loaded, and no script but these runs, whatever the names in a run say
    policy = "; ".join(
        (
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            f"script-src {' '.join(map(_hashed, scripts))}",
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
        *(element("style", Html(style)) for style in styles),
    )
    page = element("body", *body, *(element("script", Html(script)) for script in scripts))
    return join(Html("<!DOCTYPE html>\n"), element("html", top, page, lang="en"), Html("\n"))


def _hashed(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
