"""Tables, and parts of a page that fold away."""

from collections.abc import Collection, Sequence

from dlrm.reporting.markup import Html, element


def table(
    heads: Sequence[str],
    rows: Sequence[Html],
    *,
    numbers: Collection[str] = (),
    caption: str | None = None,
    sorted_by: str | None = None,
) -> Html:
    """Return a table that scrolls by itself where a screen is too narrow for it.

    Args:
        heads: The heads of its columns.
        rows: Its rows, as elements.
        numbers: The heads above columns of numbers, which stand to the right.
        caption: What the table holds.
        sorted_by: The head of the column by which the rows come sorted, largest first; a click on
            a head then sorts them anew.

    """
    top = [
        element(
            "th",
            text,
            scope="col",
            class_="n" if text in numbers else None,
            aria_sort="descending" if text == sorted_by else None,
        )
        for text in heads
    ]
    grid = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", *top)),
        element("tbody", *rows),
        class_="sort" if sorted_by else None,
    )
    named = caption or f"Table: {', '.join(heads)}"
    return element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=named)


def fold(summary: str, inside: Html, *, shown: bool = False) -> Html:
    """Return a part that opens and closes by its summary."""
    return element("details", element("summary", summary), inside, open=shown)
