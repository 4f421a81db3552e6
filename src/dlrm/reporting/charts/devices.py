"""Devices beside each other: what lies on each, piece upon piece."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlrm.reporting.charts.drawing import DASHES, LOW, drawing, labels, stand_in, svg


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a device's stack."""

    value: float
    role: str
    """Its colour."""


def stacks(
    name: str,
    title: str,
    devices: Sequence[Sequence[Part]],
    level: float | None = None,
    *,
    y_label: str,
    shown: Callable[[float], str],
) -> str:
    """Draw a bar for each device, of its parts from bottom to top.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        devices: The parts of each; at least one device.
        level: A value that none should exceed, dashed across.
        y_label: What the parts are.
        shown: How a value stands beside the axis.

    """
    with drawing(1, LOW) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        many = len(devices) > 40
        for x, parts in enumerate(devices):
            bottom = 0.0
            for part in parts:
                ax.bar(
                    [x], [part.value], 0.98 if many else 0.8, bottom=[bottom],
                    color=stand_in(part.role), alpha=0.35 if part.role == "muted" else 0.8,
                    ec=stand_in("surface"), lw=0.0 if many else 0.5,
                )  # fmt: skip
                bottom += part.value
        most = max(sum(part.value for part in parts) for parts in devices) or 1.0
        if level is not None and level < 8 * most:
            ax.axhline(level, color=stand_in("baseline"), ls=DASHES["baseline"], lw=1.4)
            most = max(most, level)
        ax.set_ylim(0, 1.08 * most)
        ax.set_xlim(-0.6, len(devices) - 0.4)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: shown(value))
        labels(ax, "device", y_label)
        return svg(figure, name, title)
