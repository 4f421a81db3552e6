"""Rooflines on a page of benchmarks: one a suite, with every operator that does arithmetic."""

from collections.abc import Sequence

from dlrm.reporting import charts
from dlrm.reporting.bench_found import Found
from dlrm.reporting.bench_machine import best
from dlrm.reporting.bench_operators import headlines, role
from dlrm.reporting.bench_rows import Case, Host, Step
from dlrm.reporting.charts import Point, Roof
from dlrm.reporting.figures import absent, figure, key, numbered
from dlrm.reporting.markup import Html, element
from dlrm.reporting.words import rate

FLAT = {"fp32": "", "bf16": "5 2.5", "int8": "1.5 2"}
"""How the roofs of arithmetic are dashed."""
MOST = 1e12
"""FLOP a byte, and GFLOP/s, that an axis has a place for."""
ROW_BYTES = 64
"""Of the rows whose gather is a roof."""


def section(found: Found) -> Html | None:
    """Return a figure for each suite and machine."""
    drawn = []
    for at, machine in enumerate(found.machines):
        many = f" on {machine}" if len(found.machines) > 1 else ""
        steps = [step for step in found.steps if step.machine == machine]
        cases = [case for case in found.cases if case.machine == machine]
        for suite, dots in (
            ("train", _of_steps([step for step in steps if step.suite == "train"])),
            ("infer", _of_steps([step for step in steps if step.suite == "infer"])),
            ("ops", _of_cases(cases)),
        ):
            if dots is not None:
                title = f"Roofline: {suite}{many}"
                drawn.append(_figure(f"roof-{suite}-{at}", title, found.host(machine), *dots))
    if not drawn:
        return None
    return element(
        "section", element("h2", "How near to the limits"), element("div", *drawn, class_="grid")
    )


Dots = tuple[list[Point], list[tuple[str, str]], list[str]]
"""Points, what the numbers on them mean with their colours, and what has no arithmetic."""


def _of_steps(steps: Sequence[Step]) -> Dots | None:
    if not steps:
        return None
    first = headlines(steps)
    points: list[Point] = []
    names: list[tuple[str, str]] = []
    rest: list[str] = []
    for step in (*first, *(step for step in steps if step not in first)):
        for each in step.operators:
            shown, color = step in first, role(each.name)
            label = f"{each.name}, {step.arch} {step.batch_size:,.0f}"
            if not _drawable(each.intensity, each.gflops_per_s):
                rest += _moved(each.name, each.gb_per_s) if shown else []
                continue
            if shown:
                names.append((label, color))
            text = str(len(names)) if shown else ""
            points.append(Point(text, each.intensity, each.gflops_per_s, color))
    if len(first) == 1:
        names = [(label.partition(",")[0], color) for label, color in names]
    return points, names, rest


def _of_cases(cases: Sequence[Case]) -> Dots | None:
    working = [case for case in cases if not case.error]
    if not working:
        return None
    points: list[Point] = []
    names: list[tuple[str, str]] = []
    rest: list[str] = []
    for operator in dict.fromkeys(case.operator for case in working):
        color = role(operator)
        every = [case for case in working if case.operator == operator]
        every.sort(key=lambda case: -case.ms)
        drawn = [
            (case.flops / case.bytes, case.gflops_per_s)
            for case in every
            if case.bytes > 0 and _drawable(case.flops / case.bytes, case.gflops_per_s)
        ]
        if not drawn:
            rest += _moved(operator, every[0].gb_per_s)
            continue
        names.append((operator, color))
        for at, (intensity, speed) in enumerate(drawn):
            points.append(Point("" if at else str(len(names)), intensity, speed, color))
    return points, names, rest


def _drawable(intensity: float, speed: float) -> bool:
    return 1 / MOST < intensity < MOST and 1 / MOST < speed < MOST


def _moved(name: str, gb_per_s: float) -> list[str]:
    """Return an operator that is not drawn with its bytes a second; nothing if it moves none."""
    return [f"{name} ({rate(gb_per_s)} GB/s)"] if gb_per_s > 0 else []


def _figure(
    name: str,
    title: str,
    host: Host | None,
    points: list[Point],
    names: list[tuple[str, str]],
    rest: list[str],
) -> Html:
    if not points:
        return absent(title, "no operator here does arithmetic")
    keys = [numbered(str(at), label, color) for at, (label, color) in enumerate(names, start=1)]
    roofs = _roofs(host) if host else []
    keys += [
        key(
            f"{roof.label}: {rate(roof.rate)} {'GB/s' if roof.memory else 'GFLOP/s'}",
            "muted" if roof.memory else "ink",
            roof.dashes or None,
        )
        for roof in roofs
    ]
    said = [] if host else ["The machine was not measured: dlrm bench machine draws its roofs."]
    if any(not point.label for point in points):
        said.append("Small dots: other settings.")
    if rest:
        said.append(f"Without arithmetic, and so not here: {', '.join(dict.fromkeys(rest))}.")
    return figure(title, keys, charts.roofline(name, title, roofs, points), " ".join(said))


def _roofs(host: Host) -> list[Roof]:
    can = host.ceilings
    roofs = [
        Roof(kind, best(can.flops[kind]) / 1e9, False, dashes)
        for kind, dashes in FLAT.items()
        if can.flops.get(kind)
    ]
    if can.copy:
        roofs.append(Roof("memory", best(can.copy) / 1e9, True, ""))
    if can.gather:
        # Rows at random places of the largest table.
        size = max(point.table_bytes for point in can.gather)
        gathered = ROW_BYTES / can.row_s(size, ROW_BYTES) / 1e9
        roofs.append(Roof(f"random {ROW_BYTES}-byte rows", gathered, True, "1.5 2"))
    return roofs
