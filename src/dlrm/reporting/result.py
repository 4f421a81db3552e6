"""The section about the result: the final metrics, beside the baseline and the optimum."""

from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import Record
from dlrm.reporting.tables import fold, table
from dlrm.reporting.verdict import baseline_name, gap, values
from dlrm.reporting.words import MEANINGS, METRICS, metric, number, percent


def section(record: Record) -> Html | None:
    """Return the table of the final metrics, the model beside the baseline and the optimum."""
    tables = []
    for split, final in record.finals.items():
        who = [one for one in ("baseline", "model", "optimum") if values(final, one)]
        if "model" not in who:
            continue
        names = {"baseline": baseline_name(final), "model": "model", "optimum": "best possible"}
        gaps = {key: gap(final, key) for key in METRICS}
        heads = ["Metric", *(names[one].capitalize() for one in who)]
        if any(gaps.values()):
            heads.append("Gap closed")
        rows = []
        for key, label in METRICS.items():
            cells: list[Html] = [
                element("td", metric(key, values(final, one).get(key)), class_=f"n {one}")
                for one in who
            ]
            if any(gaps.values()):
                closed = gaps[key]
                cells.append(element("td", percent(closed.closed) if closed else "", class_="n"))
            meaning = element("small", MEANINGS[key]) if split == record.split else None
            rows.append(element("tr", element("th", label, meaning, scope="row"), *cells))
        what = f"{split.capitalize()} rows, model of step {number(record.final_step)}"
        first = split == record.split
        found = table(heads, rows, numbers=heads[1:], caption=what if first else None)
        tables.append(found if first else fold(what, found))
    return element("section", element("h2", "Result"), *tables) if tables else None
