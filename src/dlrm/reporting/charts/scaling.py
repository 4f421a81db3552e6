"""A step on more and more devices, and what it is made of."""

from collections.abc import Sequence

from dlrm.reporting.charts.devices import Part
from dlrm.reporting.charts.drawing import LOW, drawing, labels, stand_in, svg
from dlrm.reporting.words import compact


def scaling(name: str, title: str, steps: Sequence[tuple[int, Sequence[Part]]]) -> str:
    """Draw a bar for each number of devices, of the parts of a step from bottom to top.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        steps: Number of devices, and the parts of a step on them in milliseconds; at least one.

    """
    with drawing(1, LOW) as (figure, (ax,)):
        for x, (_, parts) in enumerate(steps):
            bottom = 0.0
            for part in parts:
                ax.bar(
                    [x], [part.value], 0.8, bottom=[bottom], color=stand_in(part.role),
                    alpha=0.35 if part.role == "muted" else 0.8, ec=stand_in("surface"), lw=0.5,
                )  # fmt: skip
                bottom += part.value
        ax.set_xlim(-0.6, len(steps) - 0.4)
        ax.set_xticks(range(len(steps)), [compact(devices) for devices, _ in steps])
        labels(ax, "devices", "ms")
        return svg(figure, name, title)
