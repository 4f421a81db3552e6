"""HTML that cannot be written wrongly: every piece of text is escaped, every tag is closed."""

from html import escape

Attribute = str | int | float | bool | None

VOID = frozenset({"br", "col", "hr", "img", "link", "meta"})
"""Elements without an end tag."""


class Html(str):
    """Text that is HTML already; plain `str` is not, and is escaped wherever it is put."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: Attribute) -> Html:
    """Return an element.

    Args:
        tag: Its name.
        children: Html is taken as it is, other text is escaped, None is left out.
        attributes: `class_="wide"`, `aria_label="..."`, `open=True`; None and False are left out.

    """
    head = tag
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            head += f" {name}"
        elif value is not None and value is not False:
            head += f' {name}="{escape(str(value))}"'
    if tag in VOID:
        return Html(f"<{head}>")
    return Html(f"<{head}>{join(*children)}</{tag}>")


def join(*children: str | None) -> Html:
    """Return pieces one after another, plain text escaped."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child)
            for child in children
            if child is not None
        )
    )


def bar(kind: str) -> Html:
    """Return the first line of a page: what it is, and a button that page.js gives its work."""
    button = element(
        "button", "Light / dark", type="button", id="theme", aria_label="Switch light and dark"
    )
    return element("p", element("span", kind, class_="kind"), button, class_="bar")
