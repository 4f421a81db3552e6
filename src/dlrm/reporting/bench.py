"""The page of benchmarks: rows of results of any suites as one file that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlrm.bench.results import PROVENANCE
from dlrm.reporting import bench_machine, bench_steps, bench_suites
from dlrm.reporting.bench_rows import Results, best, sort
from dlrm.reporting.page import Lines, Page, Section, Table, save
from dlrm.reporting.words import number, percent, rate

RANGES = ("load", "steal_share", "others_share", "taken")
"""Provenance of which the least and the most are said."""
MOST = 8
"""Values of one kind that are listed."""


class Rows(NamedTuple):
    """The rows themselves, in the page."""

    rows: Sequence[Mapping[str, Any]]


def headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the rows say, in a sentence."""
    return _headline(sort(rows))


def page(rows: Sequence[Mapping[str, Any]]) -> Page:
    """Return the page of rows of any suites, as `dlrm.bench.results.load` returns them.

    It has a section for each suite that is there, and lists the rows that nothing here draws.
    """
    results = sort(rows)
    sections = [
        Section("Verdicts", bench_steps.verdicts(results)),
        Section("What would change it", bench_steps.what_if(results)),
        Section("How near to the limits", bench_machine.rooflines(results)),
        Section("Where the time goes", bench_steps.operators(results)),
        *bench_machine.machines(results),
        Section("Operators alone", bench_suites.sweeps(results.cases)),
        Section("What fewer bits cost", bench_suites.precision(results.variants)),
        Section("How far off predictions are", bench_suites.predictions(results.predictions)),
        Section("Where the figures come from", _source(results)),
    ]
    return Page(
        kind="dlrm bench",
        title=_title(results),
        about=_about(rows),
        verdict=_headline(results),
        notices=bench_steps.doubts(rows),
        sections=[section for section in sections if section.parts],
        scripts=("page.js", "bench.js"),
    )


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the page of some rows into a file and return where it is."""
    return save(page(rows), path)


def _title(results: Results) -> str:
    ways = (
        [step.text("arch") for step in results.steps],
        [variant.text("recipe") for variant in results.variants],
        [case.text("operator") for case in results.cases],
        [host.facts.cpu for host in results.hosts],
        ["Predictions"] if results.predictions else ["Results"],
    )
    return ", ".join(list(dict.fromkeys(next(filter(None, ways))))[:3])


def _about(rows: Sequence[Mapping[str, Any]]) -> str:
    cpus = dict.fromkeys(
        f"{row['cpu']}, {row.get('cores')} cores" for row in rows if row.get("cpu")
    )
    days = sorted(str(row["taken"])[:10] for row in rows if row.get("taken"))
    when = [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else []
    return " · ".join([*cpus, *when, f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"])


def _headline(results: Results) -> str:
    if results.headlines:
        first = results.headlines[0]
        return f"{first.suite.capitalize()}, {first.text('arch')}: {first.text('verdict')}"
    if results.variants:
        return bench_suites.smallest(results.variants)
    if sentence := bench_suites.accuracy(results.predictions):
        return sentence
    if results.cases:
        failed = sum(bool(case.text("error")) for case in results.cases)
        many = f"{len(results.cases)} settings of single operators"
        return f"{many}, {failed} of which failed." if failed else f"{many}."
    if results.hosts:
        can = results.hosts[0].ceilings
        does = [f"copies {rate(best(can.copy) / 1e9)} GB/s"] if can.copy else []
        does += [
            f"multiplies {rate(best(rates) / 1e9)} GFLOP/s in {kind}"
            for kind, rates in can.flops.items()
            if rates
        ]
        return f"This machine {', '.join(does)}."
    return "Nothing of these rows can be drawn."


def _source(results: Results) -> list[Any]:
    """Return what rows say of themselves, and the rows."""
    rows, out = results.rows, results.left_out
    values = {name: _values(rows, name) for name in PROVENANCE if name != "command"}
    listed = [[name.replace("_", " "), text] for name, text in values.items() if text]
    commands = list(dict.fromkeys(str(row["command"]) for row in rows if row.get("command")))
    parts: list[Any] = [Table(["Of the rows", ""], listed)]
    if commands:
        parts.append(Lines(f"{len(commands)} commands", commands, len(commands) <= MOST))
    if out:
        parts.append(Lines(f"{len(out)} rows are not drawn", out))
    return [*parts, Rows(rows)]


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    def text(value: object) -> str:
        if name.endswith("_share") and isinstance(value, float):
            return percent(value)
        return number(value, 2) if isinstance(value, int | float) else str(value)

    texts = list(dict.fromkeys(text(row[name]) for row in rows if row.get(name) is not None))
    if name in RANGES and len(texts) > 2:
        kind = str if name == "taken" else int | float
        values = sorted(row[name] for row in rows if isinstance(row.get(name), kind))
        return f"{text(values[0])} to {text(values[-1])}"
    more = f", and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more
