"""Charts as inline SVG, drawn with matplotlib; the one file that knows it.

One drawing serves the light and the dark page: colours are drawn as stand-ins and leave as the
style sheet's variables. Titles and legends are HTML beside the drawing, so that they wrap on a
phone; equal input gives equal text, byte for byte.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrm.errors import MissingExtraError
from dlrm.reporting.series import Floats, Level, Line, Window, window
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

ROLES = ("ink", "muted", "grid", "surface", "model", "train", "test", "optimum", "baseline")
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
}


def _stand_in(role: str) -> str:
    return f"#0abc{ROLES.index(role):02x}"


@contextmanager
def _drawing(rows: int = 1, height: float = LOW) -> Iterator[tuple["Figure", list["Axes"]]]:
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
        settings: dict[Any, Any] = {key: _stand_in(role) for key, role in colors.items()}
        matplotlib.rcParams.update({**settings, **STYLE})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        ratios = (2.6, 1)[:rows]
        grid = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)
        axes: list[Axes] = list(grid[:, 0])
        for ax in axes:
            ax.grid(axis="x", visible=False)
        yield figure, axes


def _svg(figure: "Figure", name: str, title: str) -> str:
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
    svg = text.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.index("</svg>")]
    # What is said of the drawing is said by the page, and its style sheet would be the whole page's
    for part in ("metadata", "style"):
        body = re.sub(rf"<{part}\b.*?</{part}>", "", body, flags=re.DOTALL)
    # Names inside a drawing are alike in all drawings, but must differ within a page
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"#0abc(\d\d)", lambda found: f"var(--{ROLES[int(found[1], 16)]})", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    box = f"0 0 {figure.get_figwidth() * 72:g} {figure.get_figheight() * 72:g}"
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<svg viewBox="{box}" role="img" aria-label="{safe}">{body}</svg>'


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    levels: Sequence[Level] = (),
    *,
    x_label: str = "training step",
    y_label: str,
    mark: tuple[float, float] | None = None,
) -> str:
    """Draw measurements over the steps of a training.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        lines: At least one, each with a point or more.
        levels: Known values, dashed across.
        x_label: What x counts.
        y_label: What y is, with its unit.
        mark: A point to put a ring around, e.g. the best one.

    """
    with _drawing() as (figure, (ax,)):
        shown = window(lines, levels)
        _scale(ax, shown, lines)
        for each in levels:
            ax.axhline(each.value, color=_stand_in(each.role), ls=DASHES[each.role], lw=1.4)
        for each in lines:
            _line(ax, each)
        if mark is not None:
            ax.plot(*mark, "o", ms=9, mfc="none", mec=_stand_in("ink"), mew=1.3, clip_on=False)
        _labels(ax, x_label, y_label)
        return _svg(figure, name, title)


def throughput(name: str, title: str, speed: Line, waiting: Line, *, x_label: str) -> str:
    """Draw samples a second over time, and below it the share of time spent on loading."""
    with _drawing(2 if len(waiting) else 1) as (figure, axes):
        top = float(speed.y.max()) * 1.12 or 1.0
        _scale(axes[0], Window(0.0, top), [speed])
        _line(axes[0], speed)
        _labels(axes[0], "", "samples per second")
        if len(waiting):
            below, most = axes[1], max(float(waiting.y.max()) * 1.25, 0.01)
            _scale(below, Window(0.0, most), [speed])
            below.fill_between(waiting.x, waiting.y, color=_stand_in("train"), alpha=0.35, lw=0)
            _line(below, waiting)
            _shares(below.yaxis)
            below.set_yticks([0.0, _round_down(most)])
            _labels(below, "", "time spent waiting for data")
        axes[-1].set_xlabel(x_label, loc="right")
        return _svg(figure, name, title)


def calibration(
    name: str, title: str, bins: Floats, scores: Floats, rates: Floats, samples: Floats
) -> str:
    """Draw the click rate of each bin of scores against its mean score.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        bins: (K, 2) lower and upper end of each bin.
        scores: (K,) mean score of the rows in it.
        rates: (K,) click rate of the rows in it.
        samples: (K,) how many rows are in it, none of them 0.

    """
    # Bins made to hold equally many rows tell nothing by their counts; the others are drawn below
    alike = samples.max() <= 1.5 * samples.min()
    with _drawing(1 if alike else 2, HIGH) as (figure, axes):
        ax = axes[0]
        most = max(scores.max(), 0.0 if alike else bins[:, 1].max())
        end = min(1.0, 1.06 * float(most) or 1.0)
        ax.plot([0, 1], [0, 1], color=_stand_in("optimum"), ls=DASHES["optimum"], lw=1.4)
        low, high = _interval(rates, samples)
        ax.vlines(scores, low, high, color=_stand_in("model"), lw=1.2, alpha=0.6)
        ax.plot(scores, rates, "o", color=_stand_in("model"), ms=4.5, clip_on=False, zorder=3)
        ax.set_xlim(0, end)
        ax.set_ylim(0, min(1.0, 1.06 * float(max(high.max(), scores.max()))))
        _shares(ax.yaxis)
        _labels(ax, "", "click rate, with its 95% interval")
        if not alike:
            # Bins of equal scores have no width, but are there
            widths = np.maximum(np.diff(bins, axis=1)[:, 0] - 0.006 * end, 0.006 * end)
            _bars(axes[1], bins[:, 0], widths, samples)
        _shares(axes[-1].xaxis)
        axes[-1].set_xlabel("mean score in the bin", loc="right")
        return _svg(figure, name, title)


def histogram(name: str, title: str, edges: Floats, negatives: Floats, positives: Floats) -> str:
    """Draw how the scores of either label are spread; each label's bars add up to 100%.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        edges: (K + 1,) ends of the bins.
        negatives: (K,) rows without a click in each bin.
        positives: (K,) rows with one.

    """
    with _drawing(1, HIGH) as (figure, (ax,)):
        filled = np.flatnonzero(negatives + positives)
        for counts, role, dash in ((negatives, "model", "-"), (positives, "train", (0, (4, 1.5)))):
            if not counts.any():
                continue
            shares = counts / float(counts.sum())
            ax.stairs(shares, edges, fill=True, color=_stand_in(role), alpha=0.28, lw=0)
            ax.stairs(shares, edges, color=_stand_in(role), lw=1.6, ls=dash, baseline=None)
        if len(filled):
            ax.set_xlim(float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        ax.set_ylim(bottom=0)
        _shares(ax.xaxis)
        _shares(ax.yaxis)
        _labels(ax, "score", "share of the label's rows")
        return _svg(figure, name, title)


def _bars(ax: "Axes", left: Floats, widths: Floats, samples: Floats) -> None:
    ax.bar(left, samples, widths, align="edge", color=_stand_in("model"), alpha=0.75)
    most = float(samples.max())
    ax.set_ylim(0, most * 1.15)
    ax.set_yticks([0.0, _round_down(most)])
    ax.yaxis.set_major_formatter(lambda value, _: compact(value))
    _labels(ax, "", "rows in the bin")


def _line(ax: "Axes", each: Line) -> None:
    color = _stand_in(each.role)
    if each.group > 1:
        ax.fill_between(each.x, each.low, each.high, color=color, alpha=0.18, lw=0)
    marker = "" if len(each) > 40 else "D" if each.role == "test" else "o"
    ax.plot(each.x, each.y, color=color, marker=marker, ms=4.5 if each.role == "test" else 3.2)


def _scale(ax: "Axes", shown: Window, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    start, end = min(line.x.min() for line in lines), max(line.x.max() for line in lines)
    # A single point stands in the middle; otherwise the axis starts where the training did
    left, right = (0.0, 2.0 * end or 1.0) if start == end else (min(0.0, start), end)
    ax.set_xlim(left, right + 0.02 * (right - left))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(lambda value, _: compact(value))
    if shown.log:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(lambda value, _: compact(value))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: _tick(value, ax.yaxis))
    ax.set_ylim(shown.low, shown.high)


def _tick(value: float, axis: "Axis", scale: float = 1.0) -> str:
    """Return a tick's value, times a scale, with the decimals that tell it from its neighbours."""
    places = np.asarray(axis.get_majorticklocs())
    step = scale * float(np.diff(places).min()) if len(places) > 1 else 1.0
    if abs(scale * value) >= 1000 or step >= 1:
        return compact(round(scale * value, 9))
    decimals = int(np.clip(np.ceil(-np.log10(step) - 1e-9), 0, 12))
    if decimals < 12 and abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1
    return f"{scale * value:,.{decimals}f}"


def _shares(axis: "Axis") -> None:
    """Name the ticks of an axis in percent."""
    axis.set_major_formatter(lambda value, _: f"{_tick(value, axis, 100)}%")


def _labels(ax: "Axes", x_label: str, y_label: str) -> None:
    ax.set_xlabel(x_label, loc="right")
    # Above the axis, where it can be read without turning the head
    ax.set_title(y_label, loc="left", fontsize=9, pad=5)


def _round_down(value: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is at most `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))


def _interval(rates: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's 95% interval of rates (K,) seen on samples (K,)."""
    z2 = 1.96**2 / samples
    center = (rates + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (rates * (1 - rates) + z2 / 4)) / (1 + z2)
    return np.minimum(center - half, rates), np.maximum(center + half, rates)
