"""Machines on a page of benchmarks: what they are and can do, and how near operators get to it."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dlrm.reporting.bench_rows import Host, Results, Step, best, binary
from dlrm.reporting.bench_steps import role
from dlrm.reporting.charts.curves import LARGEST
from dlrm.reporting.charts.drawing import (
    COLOR,
    TALL,
    Figure,
    Key,
    callouts,
    clipped,
    drawing,
    labels,
    line_style,
    logarithmic,
    size,
)
from dlrm.reporting.words import compact, rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = (("model", ""), ("train", "4 1.5"), ("test", "1.5 2"))
"""Colours and dashes of the gather curves, from the narrowest rows to the widest."""
FLAT = {"fp32": "", "bf16": "5 2.5", "int8": "1.5 2"}
"""How the roofs of arithmetic are dashed."""
MOST = 1e12
"""FLOP a byte, and GFLOP/s, that an axis has a place for."""
ROW_BYTES = 64
"""Bytes of the rows whose gather is a roof."""
NAMED = 5
"""Tables with a name on the gather curve, the largest ones."""

Models = Mapping[str, Sequence[tuple[str, float, float]]]
"""Name, bytes and bytes of a row of the tables of each model."""


class Roof(NamedTuple):
    """A ceiling: a rate of arithmetic in GFLOP/s, or of memory in GB/s."""

    label: str
    rate: float
    memory: bool
    dashes: str = ""


class Dot(NamedTuple):
    """An operator below the roofs."""

    operator: str
    detail: str
    """Step that it is an operator of."""
    intensity: float
    """FLOP a byte."""
    speed: float
    """GFLOP/s."""
    moved: float
    """GB/s."""
    named: bool
    """Whether it has a number; the others are only there."""


def machines(results: Results) -> list[dict[str, Any]]:
    """Return what is shown of each machine, with the tables of the models that ran on it."""
    shown = []
    for at, host in enumerate(results.hosts.values()):
        models = _models([step for step in results.steps if step.machine == host.machine])
        caches = [
            f"L{cache.level} {binary(cache.size_bytes)}"
            + (f" × {cache.instances}" if cache.instances != 1 else "")
            for cache in host.facts.caches
        ]
        shown.append(
            {
                "host": host,
                "caches": ", ".join(caches),
                "gather": _gather(host, models, f"gather-{at}"),
                "tables": _embeddings(host, models),
            }
        )
    return shown


def by_threads(rates: Mapping[int, float], unit: float, name: str) -> str:
    """Return the rate with most threads, and those with fewer."""
    if not rates:
        return "unavailable"
    *fewer, most = sorted(rates)
    whole = f"{rate(rates[most] / unit)} {name}"
    more = ", ".join(f"{rate(rates[threads] / unit)} with {threads}" for threads in fewer)
    return f"{whole} with {most} threads ({more})" if more else whole


def _models(steps: Sequence[Step]) -> Models:
    """Return the tables of each model, once."""
    models: dict[str, list[tuple[str, float, float]]] = {}
    for step in steps:
        tables = [
            (row.text("name"), row["bytes"], row["row_bytes"])
            for row in step.objects("tables")
            if 0 < row["bytes"] < LARGEST and 0 < row["row_bytes"] < LARGEST
        ]
        if tables and tables not in models.values():
            models[f"{step.text('arch')}, rows in {step.text('storage')}"] = tables
    return models


def _gather(host: Host, models: Models, name: str) -> Figure:
    """Draw how many random rows a second come out of tables of a size, and the models' tables."""
    title, points = "Random rows by the size of the table", host.ceilings.gather
    if not points:
        return Figure(title, "the machine's row has no gather curve")
    # Tables of equal size are one dot, and the largest come first
    names: dict[tuple[float, float], set[str]] = {}
    for tables in models.values():
        for table, table_bytes, wide in tables:
            names.setdefault((table_bytes, wide), set()).add(table)
    least = min(point.table_bytes for point in points)
    order = sorted((key for key in names if key[0] >= least), reverse=True)
    spots = [(table_bytes, 1e-6 / host.ceilings.row_s(table_bytes, w)) for table_bytes, w in order]
    rows = [(float(p.table_bytes), 1e-6 / p.row_s) for p in points]
    left, right = min(x for x, _ in rows) / 1.5, max(x for x, _ in [*rows, *spots]) * 2
    with drawing(name, title, TALL) as (figure, ax):
        powers = [10.0**p for p in range(3, 15) if left <= 10.0**p <= right]
        logarithmic(ax.xaxis, size, powers or [left])
        logarithmic(ax.yaxis, subs=(1.0, 2.0, 5.0))
        ax.set_xlim(left, right)
        ax.set_ylim(min(y for _, y in rows) / 2.5, max(y for _, y in rows) * 4)
        _caches(ax, [cache for cache in host.caches if left < cache[1] < right])
        keys, lengths = [], sorted({point.row_bytes for point in points})
        for wide, (role, dashes) in zip(lengths, CURVES, strict=False):
            curve = sorted(xy for p, xy in zip(points, rows, strict=True) if p.row_bytes == wide)
            style = {"color": COLOR[role], "ls": line_style(dashes), "marker": "o", "ms": 2.8}
            ax.plot(*zip(*curve, strict=True), **style)
            keys.append(Key(f"{wide}-byte rows", role, dashes=dashes))
        style = {"color": COLOR["test"], "mec": COLOR["surface"], "ms": 6, "mew": 0.8}
        for x, y in spots:
            ax.plot([x], [y], "D", zorder=3, **style)
        texts = [
            "".join(names[key]) if len(names[key]) == 1 else f"{len(names[key])} × {size(key[0])}"
            for key in order[:NAMED]
        ]
        texts = [clipped(text, 12) for text in texts]
        callouts(ax, spots[:NAMED], texts, height=0.95, wide=0.19)
        labels(ax, "bytes of the table", "million rows a second")
    note = "Dotted: one cache of each level."
    if spots:
        keys.append(Key("tables of the models", "test", "diamond"))
        note += " All tables of a model share the caches, so each is at most as fast as it stands."
    if len(order) > NAMED:
        note += f" The {NAMED} largest are named."
    if len(order) < len(names):
        note += f" Tables below {size(least)} are not drawn: they are as fast as that."
    figure.note, figure.legend = note, keys
    return figure


def _caches(ax: "Axes", caches: Sequence[tuple[str, int]]) -> None:
    """Draw the sizes of caches, their names one above the other, for those that are near."""
    left, right = ax.get_xlim()
    for place, (text, cache) in enumerate(caches):
        ax.axvline(cache, color=COLOR["muted"], lw=1.0, ls=line_style("1.5 2"))
        before = cache > (left * right) ** 0.5
        ax.annotate(
            clipped(text), (cache, 0.02 + 0.055 * place), (-4 if before else 4, 0),
            ax.get_xaxis_transform(), "offset points", ha="right" if before else "left",
            va="bottom", fontsize=8, color=COLOR["muted"],
        )  # fmt: skip


def _embeddings(host: Host, models: Models) -> list[tuple[str, str, float, float, float, str]]:
    """Return the tables of the models, the largest first, as the curve has them.

    Of each its name, model, bytes, bytes of a row, seconds a row, and the cache that holds it.
    """
    rows = []
    for arch, tables in models.items():
        for name, bytes_, wide in sorted(tables, key=lambda table: -table[1]):
            fits = next((text for text, room in host.caches if bytes_ <= room), "memory")
            row_s = host.ceilings.row_s(bytes_, wide) if host.ceilings.gather else math.nan
            rows.append((name, arch, bytes_, wide, row_s, fits))
    return rows


def rooflines(results: Results) -> list[Figure]:
    """Return a figure for each suite and machine, with every operator that does arithmetic."""
    figures, first = [], results.headlines
    for at, machine in enumerate(results.machines):
        dots = {
            suite: [
                Dot(
                    o.text("name"), f"{step.text('arch')} {step['batch_size']:,.0f}",
                    o["intensity"], o["gflops_per_s"], o["gb_per_s"], step in first,
                )
                for step in results.headlines_first
                if step.text("suite") == suite and step.machine == machine
                for o in step.objects("operators")
            ]
            for suite in ("train", "infer")
        }  # fmt: skip
        cases = [c for c in results.cases if c.machine == machine and not c.text("error")]
        cases.sort(key=lambda case: case["ms"])
        slowest = {case.text("operator"): case for case in cases}
        dots["ops"] = [
            Dot(
                name := case.text("operator"), "",
                case["flops"] / case["bytes"] if case["bytes"] > 0 else math.nan,
                case["gflops_per_s"], case["gb_per_s"], case is slowest[name],
            )
            for case in reversed(cases)
        ]  # fmt: skip
        on = f" on {machine}" if len(results.machines) > 1 else ""
        roofs = _roofs(results.hosts[machine]) if machine in results.hosts else []
        figures += [
            roofline(f"roof-{suite}-{at}", f"Roofline: {suite}{on}", roofs, those)
            for suite, those in dots.items()
            if those
        ]
    return figures


def _roofs(host: Host) -> list[Roof]:
    can = host.ceilings
    roofs = [
        Roof(kind, best(can.flops[kind]) / 1e9, False, dashes)
        for kind, dashes in FLAT.items()
        if can.flops.get(kind)
    ]
    if can.copy:
        roofs.append(Roof("memory", best(can.copy) / 1e9, True))
    if can.gather:
        # Rows at random places of the largest table
        largest = max(point.table_bytes for point in can.gather)
        gathered = ROW_BYTES / can.row_s(largest, ROW_BYTES) / 1e9
        roofs.append(Roof(f"random {ROW_BYTES}-byte rows", gathered, True, "1.5 2"))
    return roofs


def roofline(name: str, title: str, roofs: Sequence[Roof], all_dots: Sequence[Dot]) -> Figure:
    """Draw operators below the ceilings of a machine, of which there may be none.

    Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
    multicore architectures", Communications of the ACM 2009.
    """
    dots = [d for d in all_dots if 1 / MOST < d.intensity < MOST and 1 / MOST < d.speed < MOST]
    if not dots:
        return Figure(title, "no operator here does arithmetic")
    named = [dot for dot in dots if dot.named]
    # Of one step alone, what it is goes without saying
    once = len({dot.operator for dot in named}) == len(named)
    keys = [
        Key(d.operator if once else f"{d.operator}, {d.detail}", role(d.operator), str(at))
        for at, d in enumerate(named, start=1)
    ]
    note = "" if roofs else "The machine was not measured: dlrm bench machine draws its roofs. "
    if len(named) < len(dots):
        note += "Small dots: other settings. "
    if rest := [dot for dot in all_dots if dot.named and dot.moved > 0 and dot not in dots]:
        others = ", ".join(dict.fromkeys(f"{d.operator} ({rate(d.moved)} GB/s)" for d in rest))
        note += f"Without arithmetic, and so not here: {others}."

    def count(value: float) -> str:
        return compact(value) if value >= 1 else f"{value:g}"

    flat = max((roof.rate for roof in roofs if not roof.memory), default=math.inf)
    slopes = [roof.rate for roof in roofs if roof.memory]
    ridge = [flat / min(slopes)] if flat < math.inf and slopes else []
    left = min(dot.intensity for dot in dots) / 3
    right = max([*ridge, *(dot.intensity for dot in dots)]) * 4
    with drawing(name, title, TALL, grid="both") as (figure, ax):
        logarithmic(ax.xaxis, count)
        logarithmic(ax.yaxis, count)
        ax.set_xlim(left, right)
        speeds = [dot.speed for dot in dots] + ([flat] if flat < math.inf else [])
        ax.set_ylim(min(speeds) / 5, max(speeds) * 6)
        for roof in roofs:
            # A roof of memory ends where arithmetic limits, and the other way round
            xs = (
                (left, min(flat / roof.rate, right))
                if roof.memory
                else (max(roof.rate / max(slopes, default=math.inf), left), right)
            )
            unit, color = ("GB/s", "muted") if roof.memory else ("GFLOP/s", "ink")
            keys.append(Key(f"{roof.label}: {rate(roof.rate)} {unit}", color, dashes=roof.dashes))
            if xs[0] < xs[1]:
                ys = [roof.rate * (x if roof.memory else 1) for x in xs]
                ax.plot(xs, ys, color=COLOR[color], lw=1.3, ls=line_style(roof.dashes))
        for dot in sorted(dots, key=lambda dot: dot.named):
            style: dict[str, Any] = {"ms": 7} if dot.named else {"ms": 4, "alpha": 0.5}
            ax.plot(
                [dot.intensity], [dot.speed], "o", color=COLOR[role(dot.operator)], mew=0, **style
            )
        places = [(dot.intensity, dot.speed) for dot in named]
        callouts(ax, places, [str(at) for at in range(1, len(named) + 1)], height=0.96)
        labels(ax, "FLOP per byte", "GFLOP/s")
    figure.note, figure.legend = note.rstrip(), keys
    return figure
