"""How far off one measurement is from another, over the steps of a training."""

from collections.abc import Sequence

from dlrm.reporting.charts.drawing import DASHES, drawing, labels, stand_in, svg
from dlrm.reporting.series import Line
from dlrm.reporting.words import compact


def differences(name: str, title: str, lines: Sequence[Line], tolerance: float, none: float) -> str:
    """Draw differences by their power of ten.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        lines: At least one, of positive numbers.
        tolerance: What none should exceed, dashed across; not drawn if 0.
        none: What stands for no difference at all.

    """
    with drawing() as (figure, (ax,)):
        from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

        for line in lines:
            ax.plot(line.x, line.y, color=stand_in(line.role), lw=1.4)
        ends = [float(end) for line in lines for end in (line.y.min(), line.y.max())]
        if tolerance > 0:
            ax.axhline(tolerance, color=stand_in("baseline"), ls=DASHES["baseline"], lw=1.4)
            ends.append(tolerance)
        ax.set_yscale("log")
        ax.set_ylim(min(ends) / 2, max(ends) * 4)
        ax.yaxis.set_major_locator(LogLocator(numticks=7))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(
            lambda value, _: "0" if value < 1.5 * none else f"{value:.0e}".replace("e-0", "e-")
        )
        last = max(float(line.x[-1]) for line in lines)
        ax.set_xlim(0.0, 1.02 * last)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_formatter(lambda value, _: compact(value))
        labels(ax, "training step", "difference of the loss")
        return svg(figure, name, title)
