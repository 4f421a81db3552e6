"""Labels of a finished drawing, put where there is room."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrm.reporting.charts.drawing import stand_in
from dlrm.reporting.charts.placing import AROUND, Box, around, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 26
"""Letters of a label; longer ones are cut."""


def clipped(text: str, longest: int = LONGEST) -> str:
    """Return a label that is not too long for a drawing."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def label(
    figure: "Figure",
    ax: "Axes",
    dots: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    size: float = 8.5,
    others: Sequence[tuple[float, float]] = (),
    taken: Sequence[Box] = (),
    directions: Sequence[tuple[int, int]] = AROUND,
) -> None:
    """Write beside dots what they are, where no other label or dot is; nothing else may move then.

    Args:
        figure: The drawing.
        ax: Its axes, whose limits are final.
        dots: Of the labels, in data.
        texts: The labels, the most important ones first.
        size: Height of the font in points.
        others: Dots without a label.
        taken: Where no label may stand, in points.
        directions: In which labels may stand from their dots, the best one first.

    """
    settle(figure)
    points = [points_of(figure, ax, dot) for dot in dots]
    blocked = [*taken, *(around(*points_of(figure, ax, dot), 3.0) for dot in others)]
    shown, inside = [clipped(text) for text in texts], frame(figure, ax)
    boxes = place(points, shown, inside, size=size, taken=blocked, directions=directions)
    for text, box in zip(shown, boxes, strict=True):
        if box is not None:
            middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
            ax.annotate(
                text, middle, xycoords="figure points", ha="center", va="center", fontsize=size,
                color=stand_in("ink"), annotation_clip=False,
            )  # fmt: skip


def settle(figure: "Figure") -> None:
    """Lay a drawing out for good."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def points_of(figure: "Figure", ax: "Axes", dot: tuple[float, float]) -> tuple[float, float]:
    """Return where data lie in a settled drawing, in points."""
    x, y = ax.transData.transform(dot) * (72 / figure.dpi)
    return float(x), float(y)


def frame(figure: "Figure", ax: "Axes") -> Box:
    """Return the inside of the axes of a settled drawing, in points."""
    box = ax.get_window_extent()
    scale = 72 / figure.dpi
    return Box(box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale)
