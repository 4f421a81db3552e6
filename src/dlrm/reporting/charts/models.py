"""Models beside each other: a row a model, a dot a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from dlrm.reporting.charts.drawing import DASHES, drawing, labels, stand_in, svg, tick


@dataclass(frozen=True, slots=True)
class Row:
    """A model and its values."""

    label: str
    values: tuple[float, ...]
    """One a run; at least one."""
    role: str
    """Its colour."""


def rows(
    name: str, title: str, models: Sequence[Row], level: float | None = None, *, x_label: str
) -> str:
    """Draw the values of each model on a line of its own, with their mean.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        models: From top to bottom; at least one.
        level: A value that is known beforehand, dashed across.
        x_label: What the values are.

    """
    with drawing(1, 0.34 * len(models) + 0.85) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", visible=True)
        if level is not None:
            ax.axvline(level, color=stand_in("optimum"), ls=DASHES["optimum"], lw=1.4)
        for y, model in enumerate(models):
            color = stand_in(model.role)
            ax.plot([min(model.values), max(model.values)], [y, y], color=color, lw=1.2, alpha=0.5)
            ax.plot(
                model.values, [y] * len(model.values), "o", color=color, ms=4, alpha=0.45, mew=0
            )
            mean = sum(model.values) / len(model.values)
            ax.plot([mean], [y], "d", color=color, ms=7, mec=stand_in("surface"), mew=0.8)
        ax.set_ylim(len(models) - 0.4, -0.6)
        ax.set_yticks(range(len(models)), [model.label for model in models])
        ax.margins(x=0.06)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(lambda value, _: tick(value, ax.xaxis))
        ax.tick_params(axis="y", colors=stand_in("ink"))
        labels(ax, x_label, "")
        return svg(figure, name, title)
