"""Labels beside their dots: where each has room, and none where there is no room."""

from collections.abc import Sequence
from dataclasses import dataclass

GLYPH = 0.62
"""Width of a letter by the height of the font, wide enough for any font that a page is shown in."""
AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Directions in which a label may stand from its dot, the best one first."""
ABOVE = ((0, 1), (1, 1), (-1, 1))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in points; y points up."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "Box") -> bool:
        """Whether the two have a part in common."""
        return not (
            self.right <= other.left
            or other.right <= self.left
            or self.top <= other.bottom
            or other.top <= self.bottom
        )

    def holds(self, other: "Box") -> bool:
        """Whether the other lies inside."""
        return (
            self.left <= other.left
            and self.bottom <= other.bottom
            and other.right <= self.right
            and other.top <= self.top
        )


def around(x: float, y: float, radius: float) -> Box:
    """Return the box of a dot."""
    return Box(x - radius, y - radius, x + radius, y + radius)


def place(
    dots: Sequence[tuple[float, float]],
    texts: Sequence[str],
    inside: Box,
    *,
    size: float,
    taken: Sequence[Box] = (),
    radius: float = 4.0,
    directions: Sequence[tuple[int, int]] = AROUND,
) -> list[Box | None]:
    """Return the box of each label; None where all places near its dot are taken.

    Args:
        dots: (x, y) of each, in points.
        texts: The label of each, the most important ones first.
        inside: What labels may not leave.
        size: Height of the font in points.
        taken: Where no label may stand, beside the dots.
        radius: Of a dot.
        directions: In which a label may stand from its dot, the best one first.

    """
    full = [*taken, *(around(x, y, radius) for x, y in dots)]
    boxes: list[Box | None] = []
    for (x, y), text in zip(dots, texts, strict=True):
        wide, high = GLYPH * size * len(text), 1.25 * size
        choices = (
            _beside(x, y, wide, high, right, up, radius + far)
            for far in (1.0, 0.8 * size, 1.8 * size)
            for right, up in directions
        )
        free = (box for box in choices if inside.holds(box) and not any(map(box.meets, full)))
        chosen = next(free, None)
        if chosen is not None:
            full.append(chosen)
        boxes.append(chosen)
    return boxes


def _beside(x: float, y: float, wide: float, high: float, right: int, up: int, off: float) -> Box:
    left = x - wide / 2 + right * (wide / 2 + off)
    bottom = y - high / 2 + up * (high / 2 + off)
    return Box(left, bottom, left + wide, bottom + high)
