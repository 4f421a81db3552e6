"""Memory against log loss: a dot a candidate, a line along the best of each size."""

from collections.abc import Sequence
from dataclasses import dataclass

from dlrm.reporting.charts.drawing import HIGH, drawing, labels, stand_in, svg, tick


@dataclass(frozen=True, slots=True)
class Dot:
    """A candidate."""

    label: str
    size_bytes: int
    value: float
    role: str
    """Its colour."""
    best: bool
    """Whether no other is better in both; it is named then."""


def frontier(name: str, title: str, dots: Sequence[Dot], *, y_label: str) -> str:
    """Draw values over sizes, smaller is better in both.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        dots: At least one.
        y_label: What the values are.

    """
    with drawing(1, HIGH) as (figure, (ax,)):
        from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

        ax.grid(axis="x", visible=True)
        ax.set_xscale("log")
        best = sorted((dot for dot in dots if dot.best), key=lambda dot: dot.size_bytes)
        ax.step(
            [dot.size_bytes for dot in best],
            [dot.value for dot in best],
            where="post",
            color=stand_in("muted"),
            lw=1.1,
        )
        for dot in dots:
            ax.plot(
                [dot.size_bytes],
                [dot.value],
                "D" if dot.role == "test" else "o",
                color=stand_in(dot.role),
                ms=6 if dot.best else 4.5,
                alpha=1.0 if dot.best else 0.55,
                mew=0,
            )
        for dot in best:
            ax.annotate(
                dot.label,
                (dot.size_bytes, dot.value),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=8.5,
                color=stand_in("ink"),
            )
        low, high = (pick(dot.size_bytes for dot in dots) for pick in (min, max))
        ax.set_xlim(low / 1.3, high * 1.8)
        ax.margins(y=0.12)
        ax.xaxis.set_major_locator(FixedLocator(_sizes(low / 1.3, high * 1.8)))
        ax.xaxis.set_major_formatter(lambda value, _: _bytes(value))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: tick(value, ax.yaxis))
        labels(ax, "bytes of the tables", y_label)
        return svg(figure, name, title)


def _sizes(low: float, high: float) -> list[float]:
    """Return ticks between two sizes: powers of two times a power of ten where they are near."""
    steps = (1,) if high / low > 300 else (1, 3) if high / low > 30 else (1, 2, 5)
    sizes = [s * 10.0**p for p in range(13) for s in steps if low <= s * 10.0**p <= high]
    return sizes or [low]


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:g} {unit}"
        value /= 1000
    return f"{value:g} TB"
