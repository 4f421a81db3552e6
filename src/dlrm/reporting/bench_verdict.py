"""Verdicts on a page of benchmarks: what each step is bound by, and what would change it."""

from collections.abc import Mapping, Sequence
from math import isfinite

from dlrm.bench.watch import Seen
from dlrm.reporting.bench_rows import Row, Step
from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import measure
from dlrm.reporting.words import number, percent

NAMED, CHANGES = 2, 5
"""Changes that the verdict names, and that are shown in all."""


def section(steps: Sequence[Step]) -> Html | None:
    """Return a card for each step."""
    if not steps:
        return None
    cards = element("div", *map(_card, steps), class_="cards")
    return element("section", element("h2", "Verdicts"), cards)


def sentence(step: Step) -> str:
    """Return the verdict as the headline of a page."""
    return f"{step.suite.capitalize()}, {step.arch}: {step.verdict}"


def changes(step: Step) -> list[tuple[str, str, float]]:
    """Return what would help most: what, how, and how many times as fast it is predicted to be."""
    listed = step.row.get("changes")
    found = [
        (str(each.get("what")), str(each.get("how") or ""), measure(each.get("gain")))
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, Mapping)
    ]
    return [each for each in found if isfinite(each[2])]


def _card(step: Step) -> Html:
    known = isfinite(step.step_low + step.step_high)
    between = f"{number(step.step_low, 2)} to {number(step.step_high, 2)} ms"
    said = f"The model says {number(step.predicted_ms, 2)} ms for this step; {_error(step)}."
    notes = [said, _more(step), _published(step)]
    doubts = doubt(step.row)
    return element(
        "article",
        element("h3", step.label),
        element(
            "p",
            f"{number(step.step_ms, 2)} ms ",
            element("small", between) if known else None,
            class_="big",
        ),
        element(
            "p",
            f"{number(step.samples_per_s, 0)} samples/s, {percent(step.roofline_share)} of the "
            "roofline",
            class_="figures",
        ),
        element("p", step.verdict, class_="said"),
        *(element("p", note, class_="more") for note in notes if note),
        element("p", f"Doubtful: {doubts}.", class_="more doubtful") if doubts else None,
        class_="card",
    )


def _more(step: Step) -> str | None:
    """Return the changes that the verdict does not name."""
    items = [
        f"{gain:.2f}x by {what}" + ("" if how in ("", "hardware") else f" ({how})")
        for what, how, gain in changes(step)[NAMED:CHANGES]
    ]
    return f"Also predicted: {', '.join(items)}." if items else None


def doubt(row: Row) -> str | None:
    """Return what else computed while a row was measured; None where nothing is known of it."""
    cores, load, steal, others = (
        measure(row.get(name)) for name in ("cores", "load", "steal_share", "others_share")
    )
    if not isfinite(cores + load):
        return None
    stolen, taken = (share if isfinite(share) else None for share in (steal, others))
    return Seen(0, int(cores), load, stolen, taken).warning


def doubts(rows: Sequence[Row]) -> Html | None:
    """Return what is doubtful in rows that have no card of their own."""
    warnings = {
        f"{row.get('suite')}: {warning}": None
        for row in rows
        if row.get("suite") not in ("train", "infer") and (warning := doubt(row))
    }
    if not warnings:
        return None
    return element("p", f"Doubtful: {'; '.join(warnings)}.", class_="more doubtful")


def _published(step: Step) -> str | None:
    """Return what all samples of a published figure would take here, and took there."""
    samples, ours_s = (measure(step.row.get(f"published_{name}")) for name in ("samples", "ours_s"))
    if not isfinite(samples + ours_s):
        return None
    theirs = [
        f"{measure(value):g} s on a {name.removeprefix('published_').removesuffix('_s')}"
        for name, value in step.row.items()
        if name.startswith("published_") and name.endswith("_s") and name != "published_ours_s"
    ]
    said = f"{samples:,.0f} samples would take {ours_s:.0f} s here"
    return f"{said}; published: {', '.join(theirs)}." if theirs else f"{said}."


def _error(step: Step) -> str:
    if not isfinite(step.model_error):
        return "how far off the model is, is not known"
    return (
        f"on settings that it was not fitted to it is off by {percent(step.model_error)} in the "
        "median"
    )
