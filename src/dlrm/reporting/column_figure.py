"""The figure about which columns matter to the final model, for one label."""

import math

from dlrm.reporting import charts
from dlrm.reporting.figures import absent, figure, key
from dlrm.reporting.markup import Html
from dlrm.reporting.record import Record, measure
from dlrm.reporting.words import compact, in_sentence

SHOWN = 20
TITLE = "Which columns matter"


def figure_of(record: Record) -> Html:
    """Draw how much worse a metric is without each column; nothing where nobody measured it."""
    if not record.importance:
        return Html("")
    columns = [values for values in record.importance.get("columns") or () if values.get("column")]
    metric = next((m for m in ("auc", "log_loss", "rmse") if _known(columns, m)), None)
    if metric is None:
        return absent(TITLE, "no change of a metric was measured")
    rows = [
        charts.Change(str(values["column"]), *(measure(values.get(key)) for key in _keys(metric)))
        for values in columns
        if math.isfinite(measure(values.get(metric)))
    ]
    name = in_sentence(metric)
    drawing = charts.changes(
        f"columns-{record.place}" if record.place else "columns",
        TITLE,
        rows[:SHOWN],
        x_label=f"{name} worse by",
    )
    split = record.importance.get("split", "")
    note = (
        f"How much worse the {name} is where the values of a column are exchanged among "
        f"{compact(measure(record.importance.get('rows'), 0.0))} {split} rows. Columns that say "
        "the same stand in for each other."
    )
    if len(rows) > SHOWN:
        note += f" {len(rows) - SHOWN} columns that matter less are not drawn."
    return figure(TITLE, [key("with its 95% interval", "model", dot=True)], drawing, note)


def _keys(metric: str) -> tuple[str, str, str]:
    return metric, f"{metric}_low", f"{metric}_high"


def _known(columns: list, metric: str) -> bool:
    return any(
        all(math.isfinite(measure(values.get(key))) for key in _keys(metric)) for values in columns
    )
