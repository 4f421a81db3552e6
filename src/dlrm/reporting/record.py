"""What a run directory says, read once: everything that the report draws comes from here.

A run may be young, killed or resumed. Whatever is there is read; whatever is not is said in
`missing`, in words, so that nothing is left out silently.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlrm.errors import RunError
from dlrm.reporting.words import measure
from dlrm.run import Run
from dlrm.schema import Task

Event = dict[str, Any]

SPLITS = ("test", "validation")
"""Splits that a run may be judged on, the most telling one first."""
FILES = {
    "environment": "the command and the machine are not known",
    "dataset": "rows, features and missing rates are not known",
}
"""File of a run, without its ending -> what is not known without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A run, as far as it got."""

    path: Path
    """The run directory, as it was named."""
    recipe: str
    config: dict[str, Any]
    """The resolved configuration, nested."""
    environment: dict[str, Any]
    """The command, versions and the machine."""
    dataset: dict[str, Any]
    """Splits with their rows and clicks, and a list of features."""
    steps: Sequence[Event]
    """Training events in step order; `step`, `loss`, `samples_per_s`, `loading_share`, ..."""
    evaluations: dict[str, list[Event]]
    """Evaluations during training in step order, by split; `train` is the progressive one."""
    finals: dict[str, Event]
    """The last evaluations, by split: what evaluation-SPLIT.json holds."""
    best: Event
    """The last improvement: `step`, `metric`, `value`; empty before the first."""
    stopped: Event
    """The event of an early stop; empty without one."""
    resumes: tuple[int, ...]
    """Steps at which the run was taken up again."""
    missing: tuple[str, ...]
    """What a finished run would have and this one has not, as sentences."""
    members: "tuple[Record, ...]"
    """The members of an ensemble, as far as they were begun."""
    labels: tuple[str, ...]
    task: Task
    importance: Event = field(default_factory=dict)
    """What importance.json holds; empty when there is none."""
    place: int = 0
    """Number of the label that a record of one of several labels is about; 0 for all of them."""

    @property
    def headline(self) -> str:
        """Name of the metric that a model is judged by where nothing else was said."""
        return "rmse" if self.task == "regression" else "auc"

    @property
    def by_label(self) -> "tuple[Record, ...]":
        """A record for each label, in which evaluations are those of this label alone."""
        if len(self.labels) == 1:
            return (self,)
        return tuple(self._for_label(name, k) for k, name in enumerate(self.labels, start=1))

    def _for_label(self, label: str, place: int) -> "Record":
        def of_label(event: Event) -> Event:
            return event | (event.get("labels") or {}).get(label, {})

        return replace(
            self,
            labels=(label,),
            place=place,
            finals={split: of_label(final) for split, final in self.finals.items()},
            importance=of_label(self.importance),
            evaluations={
                split: list(map(of_label, events)) for split, events in self.evaluations.items()
            },
            members=tuple(member._for_label(label, place) for member in self.members),
        )

    @property
    def size(self) -> int:
        """How many models the run averages; 1 for a single one."""
        return int(measure(self.config.get("ensemble"), 1))

    @property
    def name(self) -> str:
        """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
        config = self.config.get("model") or {"name": "model"}
        return str(self.final.get("model") or config["name"])

    @property
    def averaged(self) -> str:
        """The mean that an ensemble takes, in words."""
        return f"mean of {self.size} models' {self.config.get('ensemble_mean', 'logits')}"

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, of an ensemble all members together; NaN when not known."""
        if self.members:
            return sum(member.elapsed_s for member in self.members)
        times = elapsed([measure(event.get("elapsed_s")) for event in self.steps])
        return times[-1] if times else math.nan

    @property
    def samples(self) -> float:
        """Samples trained on, of an ensemble by all members together; NaN when not known."""
        if self.members:
            return sum(member.samples for member in self.members)
        return measure(self.steps[-1].get("samples")) if self.steps else math.nan

    @property
    def split(self) -> str | None:
        """The split that the run is judged on; None when nothing was evaluated at the end."""
        return next((split for split in SPLITS if split in self.finals), None)

    @property
    def final(self) -> Event:
        """The evaluation that the run is judged on; empty when there is none."""
        return self.finals[self.split] if self.split else {}

    @property
    def latest(self) -> Event:
        """The last evaluation during training on a split that is not trained on; empty if none."""
        events = [event for split in reversed(SPLITS) for event in self.evaluations.get(split, ())]
        return max(events, key=lambda event: measure(event.get("step")), default={})

    @property
    def final_step(self) -> int:
        """The step whose checkpoint the final evaluations are of: the best, or else the last."""
        steps = (measure(event.get("step")) for event in (self.final, self.best))
        return int(next(filter(math.isfinite, steps), self.last_step))

    @property
    def last_step(self) -> int:
        """The last step that any event tells of; 0 when none does."""
        events = [*self.steps, *(event for rows in self.evaluations.values() for event in rows)]
        return max((int(measure(event.get("step"), 0)) for event in events), default=0)


def elapsed(times: Sequence[float]) -> list[float]:
    """Return seconds of training that only grow, also where a resumed run counts from zero."""
    total, before, grown = 0.0, 0.0, []
    for time in times:
        if time < before:
            total += before
        before = time if math.isfinite(time) else before
        grown.append(total + time)
    return grown


def values(final: Event, who: str) -> Event:
    """Return the metrics of the `model`, the `baseline` or the `optimum`; empty when unknown."""
    metrics = final.get("metrics" if who == "model" else who) or {}
    return (metrics.get("metrics") or {}) if who == "baseline" else metrics


def read(path: Path) -> Record:
    """Read a run directory.

    Raises:
        RunError: It is not a run directory, or one of its files is not JSON (names file and line).

    """
    run = Run.open(path, check=False)
    config, schema = run.config, run.schema if (path / "schema.json").is_file() else None
    known = {name: (path / f"{name}.json").is_file() for name in FILES}
    missing = [f"There is no {name}.json: {FILES[name]}." for name in FILES if not known[name]]
    size = int(measure(config.get("ensemble"), 1))
    folders = [path / "members" / str(k) for k in range(size)] if size > 1 else []
    members = tuple(read(folder) for folder in folders if (folder / "config.json").is_file())
    events, resumes = ([], ()) if members else _history(run, missing)
    finals = {split: final for split in SPLITS if (final := run.evaluation(split)) is not None}
    if not finals:
        missing.append(
            "There is no final evaluation: the run is still going, or was stopped before its end."
            " Calibration and score histogram need one."
        )
    evaluations: dict[str, list[Event]] = {}
    for event in events:
        if event["event"] == "eval":
            evaluations.setdefault(str(event.get("split")), []).append(event)
    last = {event["event"]: event for event in events}
    return Record(
        path=path,
        recipe=str(run.recipe),
        config=config,
        environment=run.environment if known["environment"] else {},
        dataset=run.dataset if known["dataset"] else {},
        steps=[event for event in events if event["event"] == "train"],
        evaluations=evaluations,
        finals=finals,
        best=last.get("best", {}),
        stopped=last.get("early_stop", {}),
        resumes=resumes,
        missing=tuple(missing),
        members=members,
        labels=schema.labels if schema else ("label",),
        task=schema.task if schema else "classification",
        importance=run.importance or {},
    )


def _history(run: Run, missing: list[str]) -> tuple[list[Event], tuple[int, ...]]:
    """Return the events that still count, and the steps of each resume.

    A resumed run starts again from a checkpoint: what was logged after that step, before the kill,
    was computed a second time, and counts once.
    """
    file = run.path / "metrics.jsonl"
    if not file.is_file():
        missing.append("There is no metrics.jsonl: nothing was logged, so there are no curves.")
        return [], ()
    try:
        rows = run.metrics()
    except OSError as error:
        raise RunError(f"{file}: it cannot be read ({error.strerror})") from error
    # A kill may stop the writer within a line, which then has no end
    if file.read_bytes()[-1:] not in (b"", b"\n"):
        missing.append("The last line of metrics.jsonl was cut off within a write; it is left out.")
    events, resumes = [], []
    for event in rows:
        if event["event"] == "resumed":
            resumes.append(int(measure(event.get("step"), 0)))
            events = [old for old in events if measure(old.get("step"), 0) <= resumes[-1]]
        else:
            events.append(event)
    if not events:
        missing.append("metrics.jsonl holds no event yet, so there are no curves.")
    return events, tuple(resumes)
