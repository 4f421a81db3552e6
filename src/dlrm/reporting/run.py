"""The report of a run: one file that needs no other, and no network.

In: a run directory. Out: report.html in it, whole or not there. A record is read from the files,
and each section is made from the record.
"""

import math
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from dlrm.data.resolve import example_file
from dlrm.errors import RunError
from dlrm.reporting import run_scores, run_tables, run_training
from dlrm.reporting.page import Command, Figure, Gauge, Grid, Page, Section, Tile, save
from dlrm.reporting.record import Record, read
from dlrm.reporting.verdict import baseline_name, gap, values, verdict
from dlrm.reporting.words import METRICS, duration, in_sentence, interval, measure, metric, number
from dlrm.run import Run

HEADLINES = {
    "classification": ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration"),
    "regression": ("rmse", "mae", "r2", "bias"),
}
"""By task, the metrics that stand at the top, the most telling ones first."""


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
    facts = (
        record.name if record.size > 1 else None,
        _date(record.environment.get("started")),
        record.environment.get("cpu"),
    )
    sections = [
        *_measured(record),
        Section("Data", run_tables.data(record)),
        Section("How it was made", run_tables.settings(record)),
        Section("Commands", [Command(what, line) for what, line in commands(record)]),
    ]
    return Page(
        kind="dlrm run report",
        title=record.recipe,
        about=" · ".join(str(fact) for fact in facts if fact),
        verdict=verdict(record),
        gauge=_gauge(record),
        tiles=_tiles(record),
        notices=_notices(record),
        sections=[section for section in sections if section.parts],
    )


def next_words(run: Run) -> list[str]:
    """Return a command that uses a model, on a file that is there: scores, or else metrics."""
    return _scoring(run.config, str(run.path)) or ["dlrm", "eval", str(run.path)]


def _scoring(config: dict[str, Any], run: str) -> list[str]:
    """Return a command that scores a file that is there; none where none is."""
    data, prepare = config.get("data"), config.get("prepare")
    if not isinstance(data, str) or (file := example_file(data)) is None:
        return []
    words = ["dlrm", "predict", run, str(file), "--out", "scores.parquet"]
    skips = isinstance(prepare, dict) and prepare.get("bad_rows") == "skip"
    return words + (["--bad-rows", "skip"] if skips else [])


def commands(record: Record) -> list[tuple[str, str]]:
    """Return the commands to type next: what each does, and its line, quoted for a shell."""
    run = str(record.path)
    command = [str(word) for word in record.environment.get("command") or ()]
    resume = ["dlrm", "train", "--run", run, "--resume"]
    lines = [("This run was made by", command)] if command else []
    if not record.finals:
        lines.append(("Take it up again where it stopped", resume))
    lines += [
        ("Evaluate it again", ["dlrm", "eval", run, "--split", record.split or "test"]),
        ("Say which columns matter", ["dlrm", "explain", run]),
        ("Score rows", _scoring(record.config, run)),
        ("Write this report again", ["dlrm", "report", run]),
    ]
    if record.finals:
        lines.append(("Take it up again, had it been stopped before its end", resume))
    return [(what, shlex.join(words)) for what, words in lines if words]


def _measured(record: Record) -> list[Section]:
    """Return the sections about what was measured; of several labels one for each."""
    members = Section(f"{len(record.members)} members", run_tables.members(record))
    training = _figures("Training", run_training.figures(record))
    if len(record.labels) == 1:
        result = Section("Result", run_tables.result(record))
        title = "Predictions" if record.task == "regression" else "Scores"
        return [result, members, training, _figures(title, run_scores.figures(record))]
    labels = [
        Section(
            f"Label {one.labels[0]}",
            [
                *run_tables.result(one),
                Grid([*run_training.over_steps(one), *run_scores.figures(one)]),
            ],
        )
        for one in record.by_label
    ]
    return [*labels, members, training]


def _figures(title: str, figures: list[Figure]) -> Section:
    return Section(title, [Grid(figures)])


def _date(started: object) -> str:
    """Return an ISO time as people write it; other text as it is."""
    try:
        when = datetime.fromisoformat(str(started))
    except ValueError:
        return str(started or "")
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".rstrip()


def _gauge(record: Record) -> Gauge | None:
    """Return where the model stands between the baseline and the best possible."""
    between = gap(record.final, record.headline) if len(record.labels) == 1 else None
    # Where the model is outside by far the labels would meet; the verdict says it in words
    if between is None or not 0 <= between.closed <= 1.5:
        return None
    high = between.model if between.closed > 1 else between.optimum
    marks = [
        (role, name, number(value), (value - between.baseline) / (high - between.baseline))
        for role, name, value in (
            ("baseline", baseline_name(record), between.baseline),
            ("model", "this model", between.model),
            ("optimum", "best possible", between.optimum),
        )
    ]
    return Gauge(METRICS[record.headline], marks)


def _tiles(record: Record) -> list[Tile]:
    """Return the headline numbers; of several labels only the first two of each."""
    tiles = []
    for one in record.by_label:
        source, split = values(one.final, "model"), one.split
        if not source and one.latest is not None:
            source, split = one.latest, str(one.latest.get("split"))
        of = f"{one.labels[0]}: {split}" if one.place else split
        tiles += [
            Tile(f"{of} {in_sentence(key)}", metric(key, source[key]), interval(source, key))
            for key in HEADLINES[one.task][: 2 if one.place else None]
            if key in source
        ]
    if math.isfinite(record.samples):
        tiles.append(Tile("samples seen", number(record.samples, 0)))
    if math.isfinite(record.elapsed_s):
        tiles.append(Tile("training time", duration(record.elapsed_s)))
    return tiles


def _notices(record: Record) -> list[str]:
    """Return what is missing, and what happened on the way."""
    notices = list(record.missing)
    if record.resumes:
        at = ", ".join(number(step) for step in record.resumes)
        notices.append(f"The run was resumed at step {at}; what was computed twice counts once.")
    if record.stopped is not None:
        patience = record.stopped.get("patience")
        after = f", after {number(patience)} evaluations without a new best"
        step = number(record.stopped.get("step"))
        notices.append(f"The run stopped early, at step {step}{'' if patience is None else after}.")
    bad = measure(record.dataset.get("bad_rows"), 0)
    if bad > 0:
        notices.append(f"{number(int(bad))} bad rows of the raw log were skipped.")
    return notices
