"""The page of benchmarks: rows of results of any suites as one file that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrm.bench.results import PROVENANCE
from dlrm.reporting.bench_machine import by_threads, machines, rooflines
from dlrm.reporting.bench_rows import Results, Row, best, sort
from dlrm.reporting.bench_serve import (
    WAYS,
    floors,
    grids,
    loads,
    matrices,
    most_disturbed,
    sentences,
)
from dlrm.reporting.bench_steps import times, what_if
from dlrm.reporting.bench_suites import accuracy, precision, predictions, smallest, sweeps
from dlrm.reporting.page import Page, save
from dlrm.reporting.words import number, percent, rate

RANGES = ("load", "steal_share", "others_share", "taken")
"""Provenance of which the least and the most are said."""
MOST = 8
"""Values of one kind that are listed."""
SAID = 3
"""Sentences about loads above the page; each table has those of its rows."""


def headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the rows say, in a sentence."""
    return _headline(sort(rows))


def page(rows: Sequence[Mapping[str, Any]]) -> Page:
    """Return the page of rows of any suites, as `dlrm.bench.results.load` returns them.

    It has a section for each suite that is there, and lists the rows that nothing here draws.
    """
    results = sort(rows)
    others = [Row(row) for row in rows if row.get("suite") not in ("train", "infer", "serve")]
    others += most_disturbed(results.serving)
    doubts = dict.fromkeys(f"{row.text('suite')}: {row.doubts}" for row in others if row.doubts)
    figure, guessed = predictions(results.predictions)
    return Page(
        kind="dlrm bench",
        title=_title(results),
        about=_about(rows),
        verdict=_headline(results),
        notices=[f"Doubtful: {'; '.join(doubts)}."] if doubts else [],
        template="bench.html",
        shown={
            "results": results,
            "roofs": rooflines(results),
            "times": times(results),
            "machines": machines(results),
            "by_threads": by_threads,
            "sweeps": sweeps(results.cases),
            "precision": precision(results.variants),
            "loads": loads(results.serving),
            "floors": floors(results.serving),
            "neighbours": [*grids(results.serving), *matrices(results.serving)],
            "ways": WAYS,
            "guesses": figure,
            "guessed": guessed,
            "provenance": {name: _values(rows, name) for name in PROVENANCE if name != "command"},
            "commands": list(dict.fromkeys(str(r["command"]) for r in rows if r.get("command"))),
            "most": MOST,
            **what_if(results),
        },
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
        [row.text("model") for row in results.serving if row.text("model")],
        [host.facts.cpu for host in results.hosts.values()],
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
    if results.steps:
        first = results.headlines[0]
        return f"{first.text('suite').capitalize()}, {first.text('arch')}: {first.text('verdict')}"
    if results.variants:
        return smallest(results.variants)
    if sentence := accuracy(results.predictions) or " ".join(sentences(results.serving)[:SAID]):
        return sentence
    if results.cases:
        failed = sum(bool(case.text("error")) for case in results.cases)
        many = f"{len(results.cases)} settings of single operators"
        return f"{many}, {failed} of which failed." if failed else f"{many}."
    for host in results.hosts.values():
        can = host.ceilings
        does = [f"copies {rate(best(can.copy) / 1e9)} GB/s"] if can.copy else []
        does += [
            f"multiplies {rate(best(rates) / 1e9)} GFLOP/s in {kind}"
            for kind, rates in can.flops.items()
            if rates
        ]
        return f"This machine {', '.join(does)}."
    return "Nothing of these rows can be drawn."


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    def text(value: object) -> str:
        if name.endswith("_share") and isinstance(value, float):
            return percent(value)
        if isinstance(value, Mapping):
            return ", ".join(f"{what}: {way}" for what, way in value.items())
        return number(value, 2) if isinstance(value, int | float) else str(value)

    texts = list(dict.fromkeys(text(row[name]) for row in rows if row.get(name) is not None))
    if name in RANGES and len(texts) > 2:
        kind = str if name == "taken" else int | float
        values = sorted(row[name] for row in rows if isinstance(row.get(name), kind))
        return f"{text(values[0])} to {text(values[-1])}"
    more = f", and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more
