"""A drawing as inline SVG, made with matplotlib.

One drawing serves the light and the dark page: colours are drawn as stand-ins and leave as the
style sheet's variables. Titles and legends are HTML beside the drawing, so that they wrap on a
phone; equal input gives equal text, byte for byte.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrm.errors import MissingExtraError
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

ROLES = (
    "ink", "muted", "grid", "surface", "model", "train", "test", "optimum", "baseline", "teal",
    "olive",
)  # fmt: skip
"""Names of the style sheet's colours."""

DASHES = {"optimum": (0, (5, 2.5)), "baseline": (0, (1.5, 2))}
"""How levels are dashed, for who cannot tell their colours apart."""

WIDTH, LOW, HIGH = 5.0, 3.1, 3.5
"""Inches: 360 units of SVG, the width of a phone, where text has its true size; two heights."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.xmargin": 0.02,
    "grid.linewidth": 0.7,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "lines.solid_joinstyle": "round",
    "lines.solid_capstyle": "round",
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "path.simplify": True,
    "text.parse_math": False,
}


def stand_in(role: str) -> str:
    """Return the colour that leaves the drawing as the style sheet's variable of that name."""
    return f"#0abc{ROLES.index(role):02x}"


@contextmanager
def drawing(rows: int = 1, height: float = LOW) -> Iterator[tuple["Figure", list["Axes"]]]:
    """Yield a figure in this project's style, whatever the user's own settings are."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("report.html", "report") from error
    colors = {
        "text.color": "ink",
        "axes.edgecolor": "muted",
        "axes.labelcolor": "muted",
        "axes.titlecolor": "muted",
        "xtick.color": "muted",
        "ytick.color": "muted",
        "grid.color": "grid",
        "axes.facecolor": "surface",
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: dict[Any, Any] = {key: stand_in(role) for key, role in colors.items()}
        matplotlib.rcParams.update({**settings, **STYLE})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        ratios = (2.6, 1)[:rows]
        grid = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)
        axes: list[Axes] = list(grid[:, 0])
        for ax in axes:
            ax.grid(axis="x", visible=False)
        yield figure, axes


def svg(figure: "Figure", name: str, title: str) -> str:
    """Return a drawing as an element that can stand in a page beside others."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    drawn = text.getvalue()
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 : drawn.index("</svg>")]
    # What is said of the drawing is said by the page, and its style sheet would be the whole page's
    for part in ("metadata", "style"):
        body = re.sub(rf"<{part}\b.*?</{part}>", "", body, flags=re.DOTALL)
    # Names inside a drawing are alike in all drawings, but must differ within a page
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"#0abc([0-9a-f]{2})", lambda found: f"var(--{ROLES[int(found[1], 16)]})", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    box = f"0 0 {figure.get_figwidth() * 72:g} {figure.get_figheight() * 72:g}"
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<svg viewBox="{box}" role="img" aria-label="{safe}">{body}</svg>'


def tick(value: float, axis: "Axis", scale: float = 1.0) -> str:
    """Return a tick's value, times a scale, with the decimals that tell it from its neighbours."""
    places = np.asarray(axis.get_majorticklocs())
    step = scale * float(np.diff(places).min()) if len(places) > 1 else 1.0
    if abs(scale * value) >= 1000 or step >= 1:
        return compact(round(scale * value, 9))
    decimals = int(np.clip(np.ceil(-np.log10(step) - 1e-9), 0, 12))
    if decimals < 12 and abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return f"{scale * value:,.{decimals}f}"


def shares(axis: "Axis") -> None:
    """Name the ticks of an axis in percent."""
    axis.set_major_formatter(lambda value, _: f"{tick(value, axis, 100)}%")


def labels(ax: "Axes", x_label: str, y_label: str) -> None:
    """Name the axes."""
    ax.set_xlabel(x_label, loc="right")
    # Above the axis, where it can be read without turning the head
    ax.set_title(y_label, loc="left", fontsize=9, pad=5)


def round_down(value: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is at most `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))
