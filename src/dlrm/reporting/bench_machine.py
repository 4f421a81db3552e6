"""The machine on a page of benchmarks: what it is, what it can do, and its gather curve."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dlrm.reporting import charts
from dlrm.reporting.bench_rows import Host, Step
from dlrm.reporting.charts import Gather, Spot
from dlrm.reporting.charts.gather import sized
from dlrm.reporting.figures import absent, figure, key
from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import measure
from dlrm.reporting.series import LARGEST
from dlrm.reporting.tables import fold, table
from dlrm.reporting.words import UNKNOWN, number, rate
from dlrm.terminal import human_bytes

CURVES = (("model", ""), ("train", "4 1.5"), ("test", "1.5 2"))
"""Colours and dashes of the curves, from the narrowest rows to the widest."""


def section(host: Host, steps: Sequence[Step], name: str) -> Html:
    """Return a machine, with the tables of the models that ran on it."""
    return element(
        "section",
        element("h2", f"Machine: {host.facts.cpu}"),
        element(
            "div",
            table(["What it is", ""], _facts(host)),
            table(["What it can do", ""], _can(host)),
            class_="beside",
        ),
        element("div", _gather(host, steps, name), class_="grid"),
        _tables(host, steps),
    )


def caches(host: Host) -> list[tuple[str, int]]:
    """Return names and bytes of the caches, the largest last."""
    found = [(f"L{c.level} {binary(c.size_bytes)}", c.size_bytes) for c in host.facts.caches]
    return sorted(found, key=lambda cache: cache[1])


def binary(size: float) -> str:
    """Return the size of a cache in powers of 1024, as data sheets have it, e.g. `48 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def best(rates: Mapping[int, float]) -> float:
    """Return the rate with most threads."""
    return rates[max(rates)]


def _facts(host: Host) -> list[Html]:
    facts = host.facts
    every = [
        f"L{cache.level} {binary(cache.size_bytes)}"
        + (f" × {cache.instances}" if cache.instances != 1 else "")
        for cache in facts.caches
    ]
    return _rows(
        ("Cores", number(facts.cores)),
        ("Virtual", UNKNOWN if facts.virtual is None else "yes" if facts.virtual else "no"),
        ("Memory", human_bytes(facts.memory_bytes) if facts.memory_bytes else UNKNOWN),
        ("Caches", ", ".join(every) or UNKNOWN),
        ("Instructions", ", ".join(facts.instructions) or UNKNOWN),
        ("Hardware counters", ", ".join(facts.counters) or "unavailable"),
        ("Fingerprint", host.machine),
    )


def _can(host: Host) -> list[Html]:
    can = host.ceilings
    products = [
        (f"Products in {kind}", _by_threads(rates, 1e9, "GFLOP/s"))
        for kind, rates in can.flops.items()
    ]
    return _rows(
        ("Copy, read and written", _by_threads(can.copy, 1e9, "GB/s")),
        *products,
        ("64-byte rows at random", _by_threads(can.gather_by_threads, 1e6, "million/s")),
        ("Smallest call", f"{1e6 * can.call_s:.2g} µs"),
    )


def _by_threads(rates: Mapping[int, float], unit: float, name: str) -> str:
    if not rates:
        return "unavailable"
    order = sorted(rates)
    said = f"{rate(rates[order[-1]] / unit)} {name}"
    if len(order) == 1:
        return said
    more = ", ".join(f"{rate(rates[threads] / unit)} with {threads}" for threads in order[:-1])
    return f"{said} with {order[-1]} threads ({more})"


def _rows(*pairs: tuple[str, str]) -> list[Html]:
    return [
        element("tr", element("th", name, scope="row"), element("td", value))
        for name, value in pairs
    ]


def _gather(host: Host, steps: Sequence[Step], name: str) -> Html:
    title = "Random rows by the size of the table"
    points = host.ceilings.gather
    lengths = sorted({point.row_bytes for point in points})
    if not lengths:
        return absent(title, "the machine's row has no gather curve")
    curves = []
    for wide, (color, dashes) in zip(lengths, CURVES, strict=False):
        line = sorted((float(p.table_bytes), 1e-6 / p.row_s) for p in points if p.row_bytes == wide)
        sizes, rates = zip(*line, strict=True)
        curves.append(Gather(sizes, rates, color, dashes))
    spots = _spots(host, steps)
    least = min(point.table_bytes for point in points)
    shown = [spot for spot in spots if spot.size_bytes >= least]
    drawn = charts.gather(name, title, curves, caches(host), shown)
    keys = [
        key(f"{wide}-byte rows", color, dashes or None)
        for wide, (color, dashes) in zip(lengths, CURVES, strict=False)
    ]
    if shown:
        keys.append(key("tables of the models", "test"))
    said = "Dotted: one cache of each level."
    if shown:
        said += " All tables of a model share the caches, so each is at most as fast as it stands."
    if len(shown) < len(spots):
        said += f" Tables below {sized(least)} are not drawn: they are as fast as that."
    return figure(title, keys, drawn, said)


def _spots(host: Host, steps: Sequence[Step]) -> list[Spot]:
    """Return tables of equal size as one dot, and the largest first."""
    found: dict[tuple[float, float], Counter[str]] = {}
    for table_of in _distinct(steps).values():
        for each_name, size, wide in table_of:
            found.setdefault((size, wide), Counter())[each_name] += 1
    spots = []
    for (size, wide), names in sorted(found.items(), reverse=True):
        text = next(iter(names)) if len(names) == 1 else f"{len(names)} × {sized(size)}"
        spots.append(Spot(text, size, 1e-6 / host.ceilings.row_s(size, wide), "test"))
    return spots


def _distinct(steps: Sequence[Step]) -> dict[str, list[tuple[str, float, float]]]:
    """Return (name, bytes, bytes of a row) of the tables of each model, once."""
    found: dict[str, list[tuple[str, float, float]]] = {}
    for step in steps:
        listed = step.row.get("tables")
        tables = [
            (
                str(each.get("name")),
                measure(each.get("bytes"), 0),
                measure(each.get("row_bytes"), 0),
            )
            for each in (listed if isinstance(listed, list) else [])
            if isinstance(each, Mapping) and 0 < measure(each.get("bytes"), 0) < LARGEST
        ]
        if tables and tables not in found.values():
            found[f"{step.arch}, rows in {step.storage}"] = tables
    return found


def _tables(host: Host, steps: Sequence[Step]) -> Html | None:
    rows, points = [], host.ceilings.gather
    for arch, tables in _distinct(steps).items():
        for name, size, wide in sorted(tables, key=lambda each: -each[1]):
            fits = next((text for text, room in caches(host) if size <= room), "memory")
            row_s = f"{1e9 * host.ceilings.row_s(size, wide):.3g}" if points else UNKNOWN
            rows.append(
                element(
                    "tr",
                    element("th", name, scope="row"),
                    element("td", arch),
                    *(
                        element("td", cell, class_="n")
                        for cell in (human_bytes(size), f"{wide:.0f} B", row_s)
                    ),
                    element("td", fits),
                )
            )
    if not rows:
        return None
    heads = ["Table", "Model", "Size", "Row", "ns a row", "Fits into"]
    grid = table(heads, rows, numbers=heads[2:5], caption="Each alone, as the curve has it")
    return fold(f"{len(rows)} tables on the curve", grid)
