"""The report of a run: one file that needs no other, and no network.

In: a run directory. Out: report.html in it, whole or not there. A record is read from the files,
and each section is made from the record.
"""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from dlrm.data.resolve import example_file
from dlrm.errors import RunError
from dlrm.metrics import NAMES
from dlrm.reporting import run_scores, run_tables, run_training
from dlrm.reporting.page import Page, save
from dlrm.reporting.record import Record, read, values
from dlrm.reporting.verdict import baseline_name, gap, verdict
from dlrm.reporting.words import duration, in_sentence, interval, measure, number
from dlrm.run import Run


def write(run_path: Path | str) -> Path:
    """Write the report of a run and return where it is.

    Args:
        run_path: A run directory, finished or not.

    Raises:
        RunError: It is not a run directory, one of its files is not JSON, or the report cannot be
            written there.
        MissingExtraError: matplotlib is not installed.

    """
    target = Path(run_path) / "report.html"
    report = page(read(Path(run_path)))
    try:
        return save(report, target)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror}") from error


def page(record: Record) -> Page:
    """Return the page for a record; equal records give equal pages."""
    environment = record.environment
    facts = (
        record.name if record.size > 1 else None,
        _date(environment.get("started")),
        environment.get("cpu"),
    )
    return Page(
        kind="dlrm run report",
        title=record.recipe,
        about=" · ".join(str(fact) for fact in facts if fact),
        verdict=verdict(record),
        notices=_notices(record),
        template="run.html",
        shown={
            "record": record,
            "run": str(record.path),
            "command": [str(word) for word in environment.get("command") or ()],
            "score": _scoring(record.config, str(record.path)),
            "gauge": _gauge(record),
            "tiles": _tiles(record),
            "training": run_training.figures(record),
            "scores": run_scores.figures(record) if len(record.labels) == 1 else [],
            "of_label": [
                [*run_training.over_steps(one), *run_scores.figures(one)]
                for one in record.by_label
                if one.place
            ],
            "values": values,
            **run_tables.tables(record),
        },
    )


def next_words(run: Run) -> list[str]:
    """Return a command that uses a model, on a file that is there: scores, or else metrics."""
    return _scoring(run.config, str(run.path)) or ["dlrm", "eval", str(run.path)]


def _scoring(config: dict[str, Any], run: str) -> list[str]:
    """Return a command that scores a file that is there; none where none is."""
    data = config.get("data")
    if not isinstance(data, str) or (file := example_file(data)) is None:
        return []
    words = ["dlrm", "predict", run, str(file), "--out", "scores.parquet"]
    skips = config.get("prepare", {}).get("bad_rows") == "skip"
    return words + (["--bad-rows", "skip"] if skips else [])


def _date(started: object) -> str:
    """Return an ISO time as people write it; other text as it is."""
    try:
        when = datetime.fromisoformat(str(started))
    except ValueError:
        return str(started or "")
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".rstrip()


def _gauge(record: Record) -> list[tuple[str, str, str, float]] | None:
    """Return where the model stands between the baseline and the best possible.

    Marks are a role, a name, a value in words and a place from 0 to 1 each.
    """
    between = gap(record.final, record.headline) if len(record.labels) == 1 else None
    # Where the model is outside by far the labels would meet; the verdict says it in words
    if between is None or not 0 <= between.closed <= 1.5:
        return None
    high = between.model if between.closed > 1 else between.optimum
    names = (baseline_name(record), "this model", "best possible")
    return [
        (role, name, number(value), (value - between.baseline) / (high - between.baseline))
        for role, name, value in zip(between._fields, names, between, strict=True)
    ]


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    """Return headline numbers, each with its name and interval; of labels the first two of each."""
    tiles = []
    for one in record.by_label:
        source, split = values(one.final, "model"), one.split
        if not source:
            source, split = one.latest, one.latest.get("split")
        prefix = f"{one.labels[0]}: {split}" if one.place else split
        # All but the last, which says little beside the others
        tiles += [
            (f"{prefix} {in_sentence(key)}", number(source[key]), interval(source, key))
            for key in NAMES[one.task][: 2 if one.place else -1]
            if key in source
        ]
    if math.isfinite(record.samples):
        tiles.append(("samples seen", number(record.samples, 0), ""))
    if math.isfinite(record.elapsed_s):
        tiles.append(("training time", duration(record.elapsed_s), ""))
    return tiles


def _notices(record: Record) -> list[str]:
    """Return what is missing, and what happened on the way."""
    notices = list(record.missing)
    if record.resumes:
        at = ", ".join(map(number, record.resumes))
        notices.append(f"The run was resumed at step {at}; what was computed twice counts once.")
    if record.stopped:
        step, patience = (number(record.stopped.get(key)) for key in ("step", "patience"))
        after = f"after {patience} evaluations without a new best"
        notices.append(f"The run stopped early, at step {step}, {after}.")
    if (bad := measure(record.dataset.get("bad_rows"), 0)) > 0:
        notices.append(f"{number(int(bad))} bad rows of the raw log were skipped.")
    return notices
