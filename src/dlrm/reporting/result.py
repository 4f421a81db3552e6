"""The final metrics, beside the baseline and the optimum."""

from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import Event, Record
from dlrm.reporting.tables import fold, table
from dlrm.reporting.verdict import baseline_name, gap, values
from dlrm.reporting.words import METRICS, interval, meaning, metric, number, percent


def section(record: Record) -> Html | None:
    """Return the section about the result of a run with one label."""
    shown = tables(record)
    return element("section", element("h2", "Result"), *shown) if shown else None


def tables(record: Record) -> list[Html]:
    """Return tables of the final metrics, the model beside the baseline and the optimum."""
    shown = []
    for split, final in record.finals.items():
        who = [one for one in ("baseline", "trees", "model", "optimum") if values(final, one)]
        if "model" not in who:
            continue
        own = record.name if record.size > 1 else "Model"
        rival = baseline_name(record).capitalize()
        names = {"baseline": rival, "trees": "LightGBM", "model": own, "optimum": "Best possible"}
        gaps = {key: gap(final, key) for key in METRICS}
        heads = ["Metric", *(names[one] for one in who)]
        if any(gaps.values()):
            heads.append("Gap closed")
        rows = []
        for key, label in METRICS.items():
            # A run of an earlier release does not know every metric.
            if not any(key in values(final, one) for one in who):
                continue
            cells: list[Html] = [_cell(values(final, one), key, one) for one in who]
            if any(gaps.values()):
                closed = gaps[key]
                cells.append(element("td", percent(closed.closed) if closed else "", class_="n"))
            says = meaning(key, regression=record.task == "regression")
            below = element("small", says) if split == record.split else None
            rows.append(element("tr", element("th", label, below, scope="row"), *cells))
        model = record.averaged if record.size > 1 else f"model of step {number(record.final_step)}"
        what = f"{split.capitalize()} rows, {model}"
        first = split == record.split
        if first and _any_interval(values(final, "model")):
            what += "; below each value its 95% interval, for the luck of the rows"
        metrics = table(heads, rows, numbers=heads[1:], caption=what if first else None)
        shown.append(metrics if first else fold(what, metrics))
    return shown


def _any_interval(metrics: Event) -> bool:
    return any(interval(metrics, name) for name in ("log_loss", "rmse"))


def _cell(metrics: Event, key: str, who: str) -> Html:
    between = interval(metrics, key)
    return element(
        "td",
        metric(key, metrics.get(key)),
        element("small", between) if between else None,
        class_=f"n {who}",
    )
