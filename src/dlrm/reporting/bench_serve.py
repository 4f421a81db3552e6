"""Servers under load on a page of benchmarks: curves, batches against delay, neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan

import numpy as np

from dlrm.reporting.bench_rows import Row
from dlrm.reporting.charts.curves import draw_line, line, line_keys
from dlrm.reporting.charts.drawing import (
    DASHES,
    HIGH,
    Figure,
    Key,
    drawing,
    labels,
    level,
    logarithmic,
    ticks,
)
from dlrm.reporting.charts.heat import heat
from dlrm.reporting.words import compact, percent, rate

PERCENTILES = {
    "p50_ms": ("median", "teal"),
    "p90_ms": ("p90", "model"),
    "p99_ms": ("p99", "train"),
    "p999_ms": ("p99.9", "test"),
}
"""Latencies of a curve: what they are called, and their colours."""
ALIKE = ("machine", "model", "sizes", "batch", "delay", "connections", "server", "data")
"""Settings that the rows of a curve have in common."""
WAYS = {
    "floor": "floor",
    "offline": "all at once",
    "single": "one after the other",
    "server": "arrivals",
    "largest": "largest",
    "grid": "grid",
    "beside": "beside",
}
"""What rows measure, in words, in their order."""


@dataclass(frozen=True, slots=True)
class Load:
    """Rows of one model, with requests of one size, on a server with one setting."""

    title: str
    figure: Figure
    rows: list[Row]
    """One after the other, all at once, then arrivals by their rate."""
    answers: list[str]
    """The largest rates, in sentences."""


def loads(rows: Sequence[Row]) -> list[Load]:
    """Return what was measured of each model by itself."""
    found = []
    for at, group in enumerate(_alike(rows, ("offline", "single", "server", "largest"), ALIKE)):
        title = called(group[0])
        answers = [answer(row) for row in group if row.text("what") == "largest"]
        shown = [row for row in group if row.text("what") != "largest"]
        shown.sort(key=lambda row: (row.text("what") == "server", row["rate"], row["p99_ms"]))
        found.append(Load(title, _curve(f"load-{at}", title, group), shown, answers))
    return found


def called(row: Row) -> str:
    """Return what was loaded, e.g. `demo, 64 rows a request`."""
    server = f" ({row.text('server')})" if row.text("server") else ""
    return f"{row.text('model')}{server}, {_request(row.text('sizes'))}"


def answer(row: Row) -> str:
    """Return what a search for the largest rate found, in a sentence."""
    name, within = called(row), row.text("within")
    low, high = row["largest_per_s"], row["largest_per_s_high"]
    runs = f"{row['held_runs']:.0f} of {row['held_runs']:.0f} runs of {row.text('length')}"
    found = f"{rate(low)} requests/s ({rate(row['rows_per_s'])} rows/s)"
    much = f"{rate(high)} was too much"
    match row.text("verdict"):
        case "held":
            return f"{name}: {found} with p99 within {within} in {runs}; {much}."
        case "not exceeded":
            return f"{name}: at least {found} with p99 within {within}: no more was offered."
        case "no verdict" if isfinite(low):
            return (
                f"{name}: no verdict on p99 within {within}: {found} were held, but not as often "
                f"as it takes; {much}."
            )
        case "no verdict":
            return f"{name}: no verdict on p99 within {within}: every rate was held and was not."
    return f"{name}: p99 was never within {within}, even at {rate(high)} requests/s."


def floors(rows: Sequence[Row]) -> list[str]:
    """Return what the load takes by itself, in sentences; the last measured counts."""
    by_kind = {row.text("of"): row for row in rows if row.text("what") == "floor"}
    lines = []
    if own := by_kind.get("generator"):
        lines.append(
            f"The generator alone schedules {rate(own['requests_per_s'])} queries/s, and adds "
            f"{own['p50_ms']:.2g} ms in the median and {own['p99_ms']:.2g} ms at p99 to each."
        )
    if http := by_kind.get("http"):
        lines.append(
            f"The same client gets {rate(http['requests_per_s'])} answers/s from the server's "
            f"/v2/health/live, one after the other in {http['p50_ms']:.2g} ms: nothing that is "
            "measured here is faster."
        )
    return lines


def sentences(rows: Sequence[Row]) -> list[str]:
    """Return what the rows say: the largest rates, the best setting, the worst neighbours."""
    lines = [answer(row) for row in rows if row.text("what") == "largest"]
    if not lines:
        lines = [
            f"{called(row)}: {rate(row['requests_per_s'])} requests/s "
            f"({rate(row['rows_per_s'])} rows/s) all at once."
            for row in rows
            if row.text("what") == "offline"
        ]
    grid = [row for row in rows if row.text("what") == "grid" and row["p99_ms"] > 0]
    if grid:
        most, quickest = max(grid, key=lambda r: r["rows_per_s"]), min(grid, key=_p99)
        lines.append(
            f"Batches of {most.text('batch')} with {most.text('delay')} of delay do the most, "
            f"{rate(most['rows_per_s'])} rows/s; p99 is the lowest, {quickest['p99_ms']:.3g} ms at "
            f"{rate(quickest['offered'])} requests/s, with {quickest.text('batch')} and "
            f"{quickest.text('delay')}."
        )
    beside = [row for row in rows if row.text("what") == "beside" and row["slowdown"] > 0]
    if beside:
        worst = max(beside, key=lambda row: row["slowdown"])
        lines.append(
            f"{worst.text('model')} beside {worst.text('beside')} does "
            f"{percent(1 / worst['slowdown'])} of what it does alone."
        )
    return lines


def _request(sizes: str) -> str:
    kind, _, median = sizes.partition(":")
    words = {
        "mlperf": "MLPerf's 100 to 700 rows a request",
        "lognormal": f"log-normal rows a request, {median} in the median",
    }
    return words.get(kind, f"{sizes} row{'' if sizes == '1' else 's'} a request")


def _p99(row: Row) -> float:
    return row["p99_ms"]


def most_disturbed(rows: Sequence[Row]) -> list[Row]:
    """Return the row beside which other programs computed the most; none where none did."""
    known = [row for row in rows if row["others_share"] > 0]
    return [max(known, key=lambda row: row["others_share"])] if known else []


def _curve(name: str, title: str, rows: Sequence[Row]) -> Figure:
    """Draw latencies over the offered rate, the limits, and the largest rate within each."""
    arrivals = [row for row in rows if row.text("what") == "server"]
    whole = [row for row in arrivals if not row.values.get("cut") and not row["failed"]]
    whole = [row for row in whole if row["rate"] > 0 and 0 < row["p50_ms"] < inf]
    title = f"Latency over offered rate: {title}"
    if not whole:
        return Figure(title, "no rate of arrivals was measured to its end")
    by_rate: dict[float, list[Row]] = {}
    for row in sorted(whole, key=lambda row: row["rate"]):
        by_rate.setdefault(row["rate"], []).append(row)
    lines = [
        line(label, role, [(x, _mean(group, key)) for x, group in by_rate.items()])
        for key, (label, role) in PERCENTILES.items()
    ]
    answers = [row for row in rows if row.text("what") == "largest"]
    limits = sorted({float(row.text("within").removesuffix(" ms")) for row in answers})
    with drawing(name, title, HIGH, grid="both") as (figure, ax):
        for value in limits:
            level(ax, value, "baseline")
        for row in answers:
            if row.text("verdict") in ("held", "not exceeded"):
                level(ax, row["largest_per_s"], "optimum", vertical=True)
        for drawn in lines:
            draw_line(ax, drawn)
        ax.set_xlim(0, 1.04 * max(by_rate))
        ticks(ax.xaxis, compact)
        logarithmic(ax.yaxis, subs=(1.0, 2.0, 5.0))
        labels(ax, "offered, requests/s", "latency from when it was due, ms")
    keys = [Key(f"{value:g} ms", "baseline", dashes=DASHES["baseline"]) for value in limits[:1]]
    if len(limits) > 1:
        keys = [Key("limits", "baseline", dashes=DASHES["baseline"])]
    if any(row.text("verdict") in ("held", "not exceeded") for row in answers):
        keys.append(Key("largest rate", "optimum", dashes=DASHES["optimum"]))
    figure.legend = [*line_keys(lines), *keys]
    figure.note = f"Each point is a run of {rows[0].text('length')}; arrivals are Poisson's."
    if cut := len(arrivals) - len(whole):
        many = "runs were" if cut > 1 else "run was"
        figure.note += f" {cut} {many} cut short, with more requests waiting than can be in time."
    return figure


def grids(rows: Sequence[Row]) -> list[Figure]:
    """Return what batch size and delay do, for each model and size of requests."""
    figures = []
    same = [name for name in ALIKE if name not in ("batch", "delay")]
    for at, group in enumerate(_alike(rows, ("grid",), same)):
        batches = sorted({row.text("batch") for row in group}, key=float)
        delays = sorted({row.text("delay") for row in group}, key=lambda d: float(d.split()[0]))
        name, note = called(group[0]), "The stronger the colour, the more."
        offered = rate(group[0]["offered"])
        drawn = _Maps(
            f"grid-{at}", group, ("batch", "delay"), batches, delays,
            x_label="longest wait for a batch", y_label="rows of a batch",
        )  # fmt: skip
        figures += [
            drawn.figure("rows_per_s", f"Rows/s, all at once: {name}", note, _round, "optimum"),
            drawn.figure("p99_ms", f"p99 at {offered} requests/s, ms: {name}", note, _short),
        ]
    return figures


def matrices(rows: Sequence[Row]) -> list[Figure]:
    """Return how much slower each model is beside each other one."""
    figures = []
    same = ("machine", "sizes", "batch", "delay", "connections", "server")
    for at, group in enumerate(_alike(rows, ("beside",), same)):
        names = list(dict.fromkeys(row.text("model") for row in group))
        beside = sorted(
            dict.fromkeys(row.text("beside") for row in group),
            key=lambda name: (names.index(name) if name in names else len(names), name),
        )
        drawn = _Maps(
            f"beside-{at}", group, ("model", "beside"), names, beside,
            x_label="beside", y_label="model",
        )  # fmt: skip
        count = max(row["processes"] for row in group)
        spread = "one server process" if count == 1 else f"{count:.0f} server processes at most"
        for key, whose, what in (
            ("slowdown", "throughput", "How many times as much a model does alone"),
            (
                "p50_slowdown",
                "the median",
                "How many times as long half of the requests take as alone, at the same rate",
            ),
            ("p99_slowdown", "p99", "How many times as long p99 is as alone, at the same rate"),
        ):
            title = f"Slowdown of {whose} beside another, {_request(group[0].text('sizes'))}"
            note = f"{what}; {spread}."
            figures.append(drawn.figure(key, title, note, lambda v: f"{v:.2f}×", "baseline"))
    return figures


@dataclass(frozen=True, slots=True)
class _Maps:
    """Heat maps of the same rows and columns, one for each figure that was measured."""

    name: str
    measured: Sequence[Row]
    settings: tuple[str, str]
    """What a measured row says of its row and of its column of the maps."""
    rows: Sequence[str]
    columns: Sequence[str]
    x_label: str
    y_label: str

    def figure(
        self, key: str, title: str, note: str, shown: Callable[[float], str], role: str = "train"
    ) -> Figure:
        """Draw one figure."""
        cells = np.full((len(self.rows), len(self.columns)), nan)
        for row in self.measured:
            at, column = map(row.text, self.settings)
            cells[self.rows.index(at), self.columns.index(column)] = row[key]
        figure = heat(
            f"{self.name}-{key}",
            title,
            cells,
            rows=self.rows,
            columns=self.columns,
            x_label=self.x_label,
            y_label=self.y_label,
            shown=shown,
            role=role,
        )
        figure.note = note
        return figure


def _alike(rows: Sequence[Row], whats: Sequence[str], same: Sequence[str]) -> list[list[Row]]:
    """Return the rows that measure one of `whats`, those together whose settings are the same."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.text("what") in whats:
            groups.setdefault(tuple(map(row.text, same)), []).append(row)
    return list(groups.values())


def _mean(rows: Sequence[Row], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def _round(value: float) -> str:
    return compact(float(f"{value:.3g}"))


def _short(value: float) -> str:
    return f"{value:.3g}"
