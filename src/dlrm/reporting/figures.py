"""A figure: a title, a legend and a note around a drawing. They are HTML, so that they wrap."""

from collections.abc import Sequence

from dlrm.reporting.markup import Html, element
from dlrm.reporting.series import Line
from dlrm.reporting.words import compact

SWATCHES = {"optimum": "5 2.5", "baseline": "1.5 2", "train-dashed": "4 1.5"}
"""How the lines of a legend are dashed, as the charts do."""


def figure(title: str, legend: Sequence[Html], drawing: str, note: str) -> Html:
    """Return a drawing with its title, its legend, and what one could not see from it."""
    keys = element("ul", *legend, class_="legend") if legend else None
    below = element("p", note, class_="note")
    body = element("div", Html(drawing), class_="drawing")
    return element("figure", element("figcaption", element("h3", title), keys), body, below)


def absent(title: str, why: str) -> Html:
    """Return the place of a figure that cannot be drawn, and why."""
    return element(
        "figure",
        element("figcaption", element("h3", title)),
        element("p", f"Not drawn: {why}.", class_="absent"),
    )


def key(label: str, role: str, dashes: str | None = None, *, dot: bool = False) -> Html:
    """Return an entry of a legend, with a piece of the line or the dot that it names."""
    dashes = dashes or SWATCHES.get(role)
    stroke = f' stroke-dasharray="{dashes}"' if dashes else ""
    mark = f'<path d="M1 5h22" stroke="currentColor" stroke-width="2"{stroke}/>'
    if role == "test":
        mark = '<path d="M12 1l4 4-4 4-4-4z"/>'
    elif dot:
        mark = '<circle cx="12" cy="5" r="3.5"/>'
    drawing = Html(f'<svg viewBox="0 0 24 10" aria-hidden="true" fill="currentColor">{mark}</svg>')
    swatch = element("span", drawing, class_="swatch", style=f"color: var(--{role})")
    return element("li", swatch, label)


def numbered(number: str, label: str, role: str) -> Html:
    """Return an entry of a legend for a dot that bears a number."""
    return element(
        "li", element("b", number, class_="number", style=f"color: var(--{role})"), label
    )


def note(lines: Sequence[Line], hidden: int = 0) -> str:
    """Say what a reader could not see from the drawing alone."""
    sentences = []
    groups = max((line.group for line in lines), default=1)
    if groups > 1:
        sentences.append(
            f"Each point is the mean of {groups} measurements; the band holds them all."
        )
    if hidden:
        sentences.append(
            f"{compact(hidden)} early point{'s are' if hidden > 1 else ' is'} outside of the frame."
        )
    dropped = sum(line.dropped for line in lines)
    if dropped:
        one = dropped == 1
        sentences.append(
            f"{compact(dropped)} measurement{' is' if one else 's are'} not finite"
            f" and {'is' if one else 'are'} not drawn."
        )
    return " ".join(sentences)
