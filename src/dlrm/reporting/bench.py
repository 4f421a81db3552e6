"""The page of benchmarks: rows of results of any suites as one file that needs no network."""

from collections.abc import Sequence
from pathlib import Path

from dlrm.files import write_bytes
from dlrm.reporting import (
    bench_machine,
    bench_operators,
    bench_precision,
    bench_prediction,
    bench_roofline,
    bench_source,
    bench_sweep,
    bench_verdict,
    bench_whatif,
)
from dlrm.reporting.bench_found import Found, sort
from dlrm.reporting.bench_rows import Row
from dlrm.reporting.document import document
from dlrm.reporting.markup import bar, element
from dlrm.reporting.words import rate


def headline(rows: Sequence[Row]) -> str:
    """Return what the rows say, in a sentence."""
    return _headline(sort(rows))


def render(rows: Sequence[Row]) -> str:
    """Return the page; equal rows give equal pages.

    Args:
        rows: What `dlrm.bench.results.load` returned, of any suites; a section for each that is
            there, and the rows that nothing here draws are listed.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    found = sort(rows)
    title = _title(found)
    return document(
        f"{title}: dlrm bench",
        element(
            "header",
            bar("dlrm bench"),
            element("h1", title),
            element("p", _about(rows), class_="made"),
            element("p", _headline(found), class_="verdict"),
            bench_verdict.doubts(rows),
        ),
        element(
            "main",
            bench_verdict.section(found.steps),
            bench_whatif.section(found),
            bench_roofline.section(found),
            bench_operators.section(found.steps),
            *(
                bench_machine.section(
                    host, [s for s in found.steps if s.machine == host.machine], f"gather-{at}"
                )
                for at, host in enumerate(found.hosts)
            ),
            bench_sweep.section(found.cases),
            bench_precision.section(found.variants),
            bench_prediction.section(found.predictions),
            bench_source.section(rows, found.left_out),
        ),
        own="bench",
    )


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Write the page and return where it is.

    Args:
        path: The file.
        rows: As for `render`.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    write_bytes(path, render(rows).encode("utf-8", "replace"))
    return path


def _title(found: Found) -> str:
    archs = dict.fromkeys(step.arch for step in found.steps)
    recipes = dict.fromkeys(each.recipe for each in found.variants)
    cpus = dict.fromkeys(host.facts.cpu for host in found.hosts)
    named = archs or recipes or dict.fromkeys(case.operator for case in found.cases) or cpus
    named = named or (["Predictions"] if found.predictions else [])
    return ", ".join(list(named)[:3]) or "Results"


def _about(rows: Sequence[Row]) -> str:
    cpus = dict.fromkeys(
        f"{row['cpu']}, {row.get('cores')} cores" for row in rows if row.get("cpu")
    )
    days = sorted(str(row["taken"])[:10] for row in rows if row.get("taken"))
    when = [] if not days else [days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"]
    return " · ".join([*cpus, *when, f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"])


def _headline(found: Found) -> str:
    ways = (_steps, _variants, _predictions, _cases, _host)
    said = (way(found) for way in ways)
    return next(filter(None, said), "Nothing of these rows can be drawn.")


def _steps(found: Found) -> str | None:
    if not found.steps:
        return None
    return bench_verdict.sentence(bench_operators.headlines(found.steps)[0])


def _variants(found: Found) -> str | None:
    if not found.variants:
        return None
    # On all data that there are: what one forgives another may not.
    failing = {each.variant for each in found.variants if each.verdict != "neutral"}
    working = [each for each in found.variants if each.variant not in failing]
    least = min(working, key=lambda each: each.bytes_per_sample, default=None)
    if least is None:
        return "No variant with fewer bits is neutral."
    changes = sorted(each.auc_change for each in working if each.variant == least.variant)
    said = " to ".join(dict.fromkeys(f"{change:+.5f}" for change in changes))
    return f"{least.variant} is the smallest that is neutral: {said} AUC."


def _predictions(found: Found) -> str | None:
    return bench_prediction.sentence(found.predictions)


def _cases(found: Found) -> str | None:
    if not found.cases:
        return None
    failed = sum(bool(case.error) for case in found.cases)
    said = f"{len(found.cases)} settings of single operators"
    return f"{said}, {failed} of which failed." if failed else f"{said}."


def _host(found: Found) -> str | None:
    if not found.hosts:
        return None
    can = found.hosts[0].ceilings
    said = [f"copies {rate(bench_machine.best(can.copy) / 1e9)} GB/s"] if can.copy else []
    said += [
        f"multiplies {rate(bench_machine.best(rates) / 1e9)} GFLOP/s in {kind}"
        for kind, rates in can.flops.items()
        if rates
    ]
    return f"This machine {', '.join(said)}."
