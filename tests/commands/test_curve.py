"""Curves of Braille letters."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dlrm.commands.curve import BLANK, DOTS, HEIGHT, WIDTH, Curve, draw

VALUES = st.lists(st.floats(-1, 2), min_size=1, max_size=200)


def dots(text: str) -> list[list[int]]:
    """Return the heights of the dots in each column, from the bottom."""
    rows = [line[-WIDTH:] for line in text.splitlines()[:HEIGHT]]
    columns: list[list[int]] = [[] for _ in range(2 * WIDTH)]
    for row, line in enumerate(reversed(rows)):
        for x, letter in enumerate(line):
            if ord(letter) >= BLANK:
                for side, bits in enumerate(DOTS):
                    heights = [4 * row + dot for dot in range(4) if ord(letter) - BLANK & bits[dot]]
                    columns[2 * x + side] += heights
    return columns


@given(VALUES)
def test_a_curve_has_no_gaps_and_begins_and_ends_where_its_values_do(values):
    columns = dots(draw([Curve(values, "red")], 0.0, 1.0, shown=str).plain)
    assert all(columns)
    for left, right in pairwise(columns):
        assert min(right) <= max(left) + 1
        assert min(left) <= max(right) + 1
    first, last = (round(min(1, max(0, v)) * (4 * HEIGHT - 1)) for v in (values[0], values[-1]))
    assert columns[0] == [first]
    assert last in columns[-1]


def test_the_axis_says_what_the_height_is():
    text = draw([Curve([0.0], "red")], 0.0, 8.0, shown=lambda v: f"{v:.0f} m", level=5.0).plain
    lines = text.splitlines()
    assert [line[:5] for line in lines if "┤" in line] == ["8 m ┤", "4 m ┤", "0 m ┤"]
    assert lines[HEIGHT - 1 - int(5 / 8 * HEIGHT)].count("╌") == WIDTH
    assert dots(text) == [[0]] * (2 * WIDTH)
