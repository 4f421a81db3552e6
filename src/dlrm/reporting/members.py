"""The section about the members of an ensemble: each alone, and how they were trained."""

from collections.abc import Sequence

from dlrm.reporting import charts
from dlrm.reporting.figures import absent, figure, key, note
from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.record import Event, Record, measure
from dlrm.reporting.series import Line, line, window
from dlrm.reporting.tables import table
from dlrm.reporting.verdict import values
from dlrm.reporting.words import METRICS, duration, in_sentence, metric, number

SHOWN = {
    "classification": ("auc", "log_loss", "normalized_entropy"),
    "regression": ("rmse", "mae", "r2"),
}
"""By task, the metrics of each member."""


def section(record: Record) -> Html | None:
    """Return the table of the members, and what averaging them brings; None for a single model."""
    if not record.members:
        return None
    record = record.by_label[0]
    shown = SHOWN[record.task]
    heads = ["", "Seed", *(METRICS[name] for name in shown), "Best step", "Steps", "Training"]
    split = record.split or "validation"
    alone = [values(member.finals.get(split, {}), "model") for member in record.members]
    rows = [
        _row(
            f"{place}: {member.name}",
            number(member.config.get("seed")),
            _texts(metrics, shown),
            number(member.final_step) if member.finals else "",
            number(member.last_step),
            duration(member.elapsed_s) if member.steps else "",
        )
        for place, (member, metrics) in enumerate(zip(record.members, alone, strict=True))
    ]
    if record.finals:
        rows.append(_row("each alone, mean", "", _texts(_mean(alone, shown), shown)))
        whole = values(record.final, "model")
        rows.append(_row(record.name, "", _texts(whole, shown), role="model"))
    last = f"; the last row is the {record.averaged}" if record.finals else ""
    rows_of = f" rows, label {record.labels[0]}" if record.place else " rows"
    caption = (
        f"{split.capitalize()}{rows_of}{last}. Each member has a run directory and a report of its"
        f" own: dlrm report {record.path}/members/0"
    )
    listed = table(heads, rows, numbers=heads[1:], caption=caption)
    return element("section", element("h2", f"{len(alone)} members"), listed)


def figures(record: Record) -> Html:
    """Draw the loss and the choosing metric of each member over its steps."""
    losses = [_line(member.steps, "loss", "train") for member in record.members]
    record = record.by_label[0]
    chosen = chosen_metric(record)
    seen = [
        _line(member.evaluations.get("validation", ()), chosen, "model")
        for member in record.members
    ]
    shown = METRICS.get(chosen, chosen)
    mean = measure(values(record.finals.get("validation", {}), "model").get(chosen))
    end = max((float(curve.x[-1]) for curve in seen if len(curve)), default=0.0)
    whole = line(f"{record.name}, of the best of each", "test", [(end, mean)])
    title = f"Validation {in_sentence(chosen)} of the members"
    if len(whole):
        title += f"; their mean reaches {metric(chosen, mean)}"
    return join(
        _curves("loss", "Training loss of the members", losses, "loss per sample"),
        _curves(chosen.replace("_", "-"), title, [*seen, whole], shown),
    )


def chosen_metric(record: Record) -> str:
    """Return the name of the metric that the best model was chosen by."""
    holder = record.config.get("eval")
    name = holder.get("metric") if isinstance(holder, dict) else None
    return str(name) if name not in (None, "auto") else record.headline


def _row(
    who: str,
    seed: str,
    metrics: Sequence[str],
    best: str = "",
    steps: str = "",
    took: str = "",
    *,
    role: str = "",
) -> Html:
    texts = [seed, *metrics, best, steps, took]
    cells = [element("td", text, class_=f"n {role}".rstrip()) for text in texts]
    return element("tr", element("th", who, scope="row"), *cells)


def _texts(metrics: Event, shown: Sequence[str]) -> list[str]:
    return [metric(name, metrics.get(name)) for name in shown]


def _mean(alone: Sequence[Event], shown: Sequence[str]) -> Event:
    known = {name: [measure(metrics.get(name)) for metrics in alone] for name in shown}
    return {name: sum(seen) / len(seen) for name, seen in known.items()}


def _line(events: Sequence[Event], name: str, role: str) -> Line:
    known = [event for event in events if event.get(name) is not None]
    points = [(measure(event.get("step")), measure(event[name])) for event in known]
    return line("each member", role, points)


def _curves(name: str, title: str, lines: Sequence[Line], unit: str) -> Html:
    drawn = [line for line in lines if len(line)]
    if not drawn:
        return absent(title, "no step with a finite value was logged yet")
    drawing = charts.curves(name, title, drawn, y_label=unit)
    # Members look alike: one entry stands for all.
    legend = [key(label, role) for label, role in {line.label: line.role for line in drawn}.items()]
    return figure(title, legend, drawing, note(drawn, window(drawn).hidden))
