"""What was predicted beside what was measured, over several powers of ten."""

from collections.abc import Sequence
from dataclasses import dataclass

from dlrm.reporting.charts.drawing import DASHES, HIGH, drawing, labels, stand_in, svg
from dlrm.reporting.words import compact


@dataclass(frozen=True, slots=True)
class Guess:
    """One prediction."""

    predicted_ms: float
    ms: float
    role: str
    """Its colour."""


def predictions(name: str, title: str, guesses: Sequence[Guess], tolerance: float) -> str:
    """Draw predictions over measurements; what is right lies on the diagonal.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        guesses: At least one, of positive times.
        tolerance: Relative error that is aimed at, a band.

    """
    with drawing(1, HIGH) as (figure, (ax,)):
        from matplotlib.ticker import LogLocator, NullLocator

        ends = [end for guess in guesses for end in (guess.ms, guess.predicted_ms)]
        low, high = min(ends) / 1.5, max(ends) * 1.5
        line = [low, high]
        ax.grid(axis="x", visible=True)
        ax.fill_between(
            line, [end * (1 - tolerance) for end in line], [end * (1 + tolerance) for end in line],
            color=stand_in("optimum"), alpha=0.18, lw=0,
        )  # fmt: skip
        ax.plot(line, line, color=stand_in("optimum"), ls=DASHES["optimum"], lw=1.2)
        for role in dict.fromkeys(guess.role for guess in guesses):
            ax.plot(
                [guess.ms for guess in guesses if guess.role == role],
                [guess.predicted_ms for guess in guesses if guess.role == role],
                "o", color=stand_in(role), ms=4.2, alpha=0.75, mew=0,
            )  # fmt: skip
        for axis, scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
            scale("log")
            axis.set_major_locator(LogLocator(numticks=7))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(lambda value, _: compact(value))
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        labels(ax, "measured, ms", "predicted, ms")
        return svg(figure, name, title)
