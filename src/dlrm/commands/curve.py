"""A curve on a terminal: dots of Braille letters, two beside and four above each other in each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

WIDTH, HEIGHT = 64, 7
"""Letters of a drawing."""
DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))
"""Bits of a letter's dots: by column, then from bottom to top."""
BLANK = 0x2800


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at equal distances from left to right."""

    values: Sequence[float]
    style: str
    """Colour of the letters, as rich names it."""


def draw(
    curves: Sequence[Curve],
    low: float,
    high: float,
    *,
    shown: Callable[[float], str],
    level: float | None = None,
) -> Text:
    """Return curves as lines of text, with values beside the first, the middle and the last.

    Args:
        curves: Curves of one or more values each; a later one covers the colour of an earlier one.
        low: Value at the bottom; what lies below it is drawn there.
        high: Value at the top, above `low`.
        shown: How a value stands beside the axis.
        level: A value that is dashed across.

    """
    bits = [[0] * WIDTH for _ in range(HEIGHT)]
    styles = [[""] * WIDTH for _ in range(HEIGHT)]
    for curve in curves:
        before = None
        for x in range(2 * WIDTH):
            y = round(_share(_at(curve.values, x / (2 * WIDTH - 1)), low, high) * (4 * HEIGHT - 1))
            # From the height before up to this one, so that steep parts have no gaps.
            begin, end = sorted((y, y if before is None else before))
            for dot in range(begin + (end > begin and begin == before), end + 1):
                bits[dot // 4][x // 2] |= DOTS[x % 2][dot % 4]
                styles[dot // 4][x // 2] = curve.style
            before = y
    dashed = -1 if level is None else min(HEIGHT - 1, int(_share(level, low, high) * HEIGHT))
    labels = {0: shown(low), HEIGHT // 2: shown((low + high) / 2), HEIGHT - 1: shown(high)}
    margin = max(map(len, labels.values()))
    text = Text(no_wrap=True)
    for row in reversed(range(HEIGHT)):
        text.append(f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}")
        for letter, style in zip(bits[row], styles[row], strict=True):
            if letter:
                text.append(chr(BLANK | letter), style)
            else:
                text.append("╌" if row == dashed else " ", "dim")
        text.append("\n")
    text.append(f"{'':>{margin}} └{'─' * WIDTH}")
    return text


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _at(values: Sequence[float], share: float) -> float:
    """Return the value at a share of the way, between its neighbours."""
    place = share * (len(values) - 1)
    left = min(int(place), max(0, len(values) - 2))
    right = min(left + 1, len(values) - 1)
    return values[left] + (place - left) * (values[right] - values[left])
