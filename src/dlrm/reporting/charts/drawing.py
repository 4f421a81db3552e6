"""The theme of all charts: a matplotlib figure that becomes inline SVG.

Shapes have the colours of the light theme. The style sheet of a page is made from the same
`PALETTE` and overrides them, colour by colour, with variables that follow light and dark. Titles,
legends and notes are HTML beside the drawing, so that they wrap on a phone.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dlrm.errors import MissingExtraError
from dlrm.reporting.words import compact
from dlrm.terminal import human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

PALETTE = {
    "surface": ("#ffffff", "#14171c"),
    "raised": ("#f5f7f9", "#1c2027"),
    "ink": ("#16191d", "#eceff3"),
    "muted": ("#565f6b", "#a4aebb"),
    "grid": ("#e3e7ec", "#2c323b"),
    "model": ("#0a5fb4", "#62b2ff"),
    "train": ("#ad5500", "#f5a742"),
    "test": ("#7a35b8", "#c9a4ff"),
    "optimum": ("#08754f", "#4fd3a2"),
    "baseline": ("#9c2f55", "#f48fb0"),
    "teal": ("#0b7285", "#5ad1e4"),
    "olive": ("#726500", "#d6c64c"),
    "warning": ("#fff6e0", "#332a14"),
}
"""Colours by their role, in the light and in the dark theme."""

COLOR = {role: light for role, (light, _) in PALETTE.items()}

DASHES = {"optimum": "5 2.5", "baseline": "1.5 2"}
"""How levels are dashed, for who cannot tell their colours apart: lengths as SVG writes them."""

WIDTH, LOW, HIGH, TALL = 5.0, 3.1, 3.5, 3.9
"""Inches: 360 units of SVG, the width of a phone, where text has its true size; three heights."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dlrm",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": COLOR["ink"],
    "axes.edgecolor": COLOR["muted"],
    "axes.labelcolor": COLOR["muted"],
    "axes.titlecolor": COLOR["muted"],
    "axes.facecolor": COLOR["surface"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.xmargin": 0.02,
    "axes.linewidth": 0.8,
    "grid.color": COLOR["grid"],
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "xtick.color": COLOR["muted"],
    "ytick.color": COLOR["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


class Key(NamedTuple):
    """An entry of a legend."""

    label: str
    role: str
    """Role of the key, which gives its colour."""
    mark: str = "line"
    """`line`, `dot`, `diamond` or `square`; else the number that stands at a dot."""
    dashes: str = ""
    """Lengths of a line's dashes and gaps; nothing for a solid one."""


@dataclass(slots=True)
class Figure:
    """A drawing with its title, its legend, and what one could not see from it."""

    title: str
    note: str = ""
    """Text below the drawing, or the reason why there is no drawing."""
    legend: Sequence[Key] = ()
    svg: str = ""
    """The drawing, ready when the block of `drawing` has ended; nothing where there is none."""


@contextmanager
def drawing(
    name: str,
    title: str,
    height: float = LOW,
    *,
    rows: int = 1,
    columns: int = 1,
    width: float = WIDTH,
    grid: str = "y",
) -> "Iterator[tuple[Figure, *tuple[Axes, ...]]]":
    """Yield a figure and its axes, in this project's style whatever the user's own settings are.

    Args:
        name: A name of its own within the page; names of what is inside begin with it.
        title: What the figure says.
        height: Inches.
        rows: Axes below one another, which share x; the first is the highest.
        columns: Axes beside one another, which share y.
        width: Inches.
        grid: Axis with lines across the drawing: `x`, `y` or `both`.

    """
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingExtraError("report.html", "report") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "axes.grid.axis": grid})
        canvas = Canvas(figsize=(width, height), layout="constrained")
        axes = canvas.subplots(
            rows, columns, sharex="col", sharey="row", squeeze=False,
            height_ratios=(2.6, 1)[:rows],
        )  # fmt: skip
        figure = Figure(title)
        yield figure, *axes.flat
        text = io.StringIO()
        unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(text, format="svg", transparent=True, metadata=unsaid)
        svg = text.getvalue()[text.getvalue().index("<svg") :]
        # A page has many drawings, whose parts have equal names
        figure.svg = re.sub(r'( id="|href="#|url\(#)', rf"\1{name}-", svg)


def standalone(svg: str) -> str:
    """Return a drawing as a file of its own, which follows light and dark where it is shown."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in PALETTE.values()
        for what in ("fill", "stroke")
    )
    head, within = svg.split(">", 1)
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return f"{head}>\n{style}{within}"


def line_style(dashes: str) -> Any:
    """Return dashes as matplotlib has them; solid for none."""
    return (0, tuple(map(float, dashes.split()))) if dashes else "-"


def level(ax: "Axes", value: float, role: str, *, vertical: bool = False) -> None:
    """Draw a dashed line across at a value that is known beforehand."""
    draw = ax.axvline if vertical else ax.axhline
    draw(value, color=COLOR[role], ls=line_style(DASHES[role]), lw=1.4)


def diagonal(ax: "Axes", low: float, high: float) -> None:
    """Draw where both axes have the same value."""
    ends = [low, high]
    ax.plot(ends, ends, color=COLOR["optimum"], ls=line_style(DASHES["optimum"]), lw=1.4)


def labels(ax: "Axes", x_label: str, y_label: str) -> None:
    """Name the axes."""
    ax.set_xlabel(x_label, loc="right")
    # Above the axis, where it can be read without turning the head
    ax.set_title(y_label, loc="left", fontsize=9, pad=5)


def ticks(axis: "Axis", text: Callable[[float], str] | None = None, *, most: int = 5) -> None:
    """Put at most some round ticks on an axis, with the decimals that tell them apart."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: text(value) if text else tick(value, axis))


def logarithmic(
    axis: "Axis",
    text: Callable[[float], str] = compact,
    places: Sequence[float] = (),
    subs: Sequence[float] = (1.0,),
) -> None:
    """Make an axis logarithmic, with ticks at powers of ten or at these places."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")  # pyright: ignore[reportAttributeAccessIssue]
    locator = FixedLocator(places) if len(places) else LogLocator(subs=subs, numticks=8)
    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: text(value))


def shares(axis: "Axis") -> None:
    """Name the ticks of an axis in percent."""
    axis.set_major_formatter(lambda value, _: f"{tick(value, axis, 100)}%")


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


def name_rows(ax: "Axes", names: Sequence[str]) -> None:
    """Name lines of their own, the first at the top, and put ticks below them."""
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", colors=COLOR["ink"])
    ax.margins(x=0.06)
    ticks(ax.xaxis)


def frontier(ax: "Axes", dots: Sequence[tuple[float, float, str]], best: Sequence[bool]) -> None:
    """Draw (x, y, role) as dots, and a line along those that no other is better than in both."""
    joined = sorted(dot[:2] for dot, is_best in zip(dots, best, strict=True) if is_best)
    x, y = [x for x, _ in joined], [y for _, y in joined]
    ax.step(x, y, where="post", color=COLOR["muted"], lw=1.1)
    for (x, y, role), is_best in zip(dots, best, strict=True):
        style: dict[str, Any] = {"ms": 6} if is_best else {"ms": 4.5, "alpha": 0.6}
        ax.plot([x], [y], "D" if role == "test" else "o", color=COLOR[role], mew=0, **style)


def callouts(
    ax: "Axes",
    dots: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    height: float,
    wide: float = 0.055,
) -> None:
    """Write texts in a row at a height of finished axes, each with a thin line to its (x, y) dot.

    They stand in the order of the dots, as near above them as there is room: `wide` for each, in
    parts of the axes as `height` is, and less where there are too many.
    """
    within = (ax.transScale + ax.transLimits).transform(np.asarray(dots).reshape(-1, 2))
    order = np.argsort(within[:, 0], kind="stable")
    wide, left = min(wide, 1 / max(len(dots), 1)), 0.0
    for place, at in enumerate(map(int, order)):
        after = len(order) - place - 0.5
        x = min(max(float(within[at, 0]), left + wide / 2), 1 - after * wide)
        left = x + wide / 2
        ax.annotate(
            texts[at], dots[at], (x, height), textcoords="axes fraction", ha="center", va="center",
            fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOR["muted"], "lw": 0.4, "shrinkB": 3},
        )  # fmt: skip


def size(value: float) -> str:
    """Return bytes without decimals that they do not need, e.g. `32 MB`."""
    return human_bytes(value).replace(".0 ", " ")


def clipped(text: str, longest: int = 26) -> str:
    """Return a text with an ellipsis where it is too long for a drawing."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
