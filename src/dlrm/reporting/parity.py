"""The page of `dlrm parity`: losses of several processes beside those of one."""

from pathlib import Path

from dlrm.files import write_bytes
from dlrm.reporting import charts
from dlrm.reporting.document import document
from dlrm.reporting.figures import figure, key
from dlrm.reporting.markup import Html, bar, element
from dlrm.reporting.series import line
from dlrm.reporting.tables import table
from dlrm.training.parity import Parity
from dlrm.training.variant import Outcome

FLOOR = 1e-10
"""Differences of none at all are drawn there, where a logarithm has a place for them."""
ROLES = ("model", "train", "optimum", "muted")
"""Colours of the lines."""
ROUNDING = (
    "Differences near 1e-7 are the last digit of a loss: several processes add up the same numbers "
    "in another order."
)


def conclusion(parity: Parity) -> str:
    """Return whether the losses are those of one process, in some sentences."""
    count, equal = len(parity.compared), parity.with_verdict("equal")
    worst = max(parity.compared, key=lambda outcome: parity.worst(outcome)[0])
    largest, step = parity.worst(worst)
    if len(equal) == count:
        many = f"all {count} ways" if count > 1 else "the one way"
        return (
            f"Equal: the losses of {parity.steps} steps are those of one process within "
            f"{parity.tolerance:g} in {many} to train; the largest difference is {largest:.1e}."
        )
    off = (
        f"the losses of {count - len(equal)} of {count} ways to train are off by more than "
        f"{parity.tolerance:g}, at most by {largest:.1e}, in step {step} of {_name(worst)}."
    )
    if (diverged := parity.with_verdict("diverged")) and not parity.with_verdict("different"):
        names = dict.fromkeys(outcome.variant.optimizer for outcome in diverged)
        reached = max(max(parity.alone[name]) for name in names)
        return (
            f"Nothing can be told of {', '.join(names)}: the loss of one process diverges, to "
            f"{reached:,.4g}, and any rounding then ends elsewhere. Try a smaller --optim.lr."
        )
    control = parity.reordered_max_abs_diff or 0.0
    if parity.holds:
        return (
            f"Equal but for rounding: {off} One process that takes the samples of each batch in "
            f"other orders goes off too, by up to {control:.1e}."
        )
    return (
        f"Different: {off} One process that takes the samples of each batch in other orders, which "
        f"rounds otherwise and changes nothing else, goes off by {control:.1e} at most."
    )


def processes(count: int) -> str:
    """Return a number of processes in words."""
    return "1 process" if count == 1 else f"{count} processes"


def among(parity: Parity, count: int) -> str:
    """Return the name of a curve: what is compared on so many processes."""
    engines = dict.fromkeys(o.variant.engine for o in parity.compared if o.variant.procs == count)
    # On one process, another engine than what it is compared with.
    return f"1 process, {', '.join(engines)}" if count == 1 else processes(count)


def render(parity: Parity) -> str:
    """Return the page; equal results give equal pages."""
    config = parity.config
    about = (
        f"{config.data}, {config.precision}, {config.loader.batch_size:,} samples a step, "
        f"seed {config.seed}"
    )
    return document(
        f"{parity.recipe}: dlrm parity",
        element(
            "header",
            bar("dlrm parity"),
            element("h1", f"{config.model.name} on several processes"),
            element("p", about, class_="made"),
            element("p", conclusion(parity), class_="verdict"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "Step by step"),
                element("div", _losses(parity), _differences(parity), class_="grid"),
            ),
            element("section", element("h2", "Every way to train"), _table(parity)),
        ),
    )


def write(target: Path, parity: Parity) -> Path:
    """Write the page and return where it is.

    Args:
        target: The file.
        parity: What is shown.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    write_bytes(target, render(parity).encode("utf-8", "replace"))
    return target


def _losses(parity: Parity) -> Html:
    title = "Loss of one process"
    lines = [
        line(name, role, list(enumerate(losses, start=1)))
        for (name, losses), role in zip(parity.alone.items(), ROLES, strict=False)
    ]
    keys = [key(curve.label, curve.role, dot=True) for curve in lines]
    drawn = charts.curves("loss", title, lines, y_label="loss of a batch")
    below = "Those of all other ways lie upon these lines." if parity.holds else ""
    return figure(title, keys, drawn, below)


def _differences(parity: Parity) -> Html:
    title = "Largest difference to it"
    worlds = sorted({outcome.variant.procs for outcome in parity.compared})
    lines = [
        line(
            among(parity, world),
            ROLES[at % len(ROLES)],
            [(step, max(FLOOR, d)) for step, d in enumerate(parity.envelope(world), start=1)],
        )
        for at, world in enumerate(worlds)
    ]
    keys = [
        *(key(curve.label, curve.role, dot=True) for curve in lines),
        key(f"tolerance, {parity.tolerance:g}", "baseline"),
    ]
    drawn = charts.differences("difference", title, lines, parity.tolerance, FLOOR)
    return figure(title, keys, drawn, ROUNDING)


def _table(parity: Parity) -> Html:
    heads = [
        "Optimizer", "Engine", "Sharding", "Processes", "Largest difference", "At step",
        "Last loss", "Verdict",
    ]  # fmt: skip
    rows = []
    for name, losses in parity.alone.items():
        rows.append(_row(name, ["", "", "1", "", "", f"{losses[-1]:.6f}", ""]))
        rows += [
            _row(name, _cells(parity, outcome))
            for outcome in parity.outcomes
            if outcome.variant.optimizer == name
        ]
    caption = f"Beside one process, over {parity.steps} steps"
    return table(heads, rows, numbers=heads[3:7], caption=caption)


def _cells(parity: Parity, outcome: Outcome) -> list[str]:
    variant = outcome.variant
    names = [variant.engine, variant.sharding, str(variant.procs)]
    if outcome.refused is not None:
        return [*names, "", "", "", f"refused: {outcome.refused}"]
    largest, step = parity.worst(outcome)
    return [
        *names,
        f"{largest:.1e}",
        str(step),
        f"{outcome.losses[-1]:.6f}",
        parity.verdict(outcome),
    ]


def _row(optimizer: str, cells: list[str]) -> Html:
    return element(
        "tr",
        element("th", optimizer, scope="row"),
        *(
            element("td", cell, class_="n" if 2 <= at <= 5 else None)
            for at, cell in enumerate(cells)
        ),
    )


def _name(outcome: Outcome) -> str:
    variant = outcome.variant
    way = f"{variant.optimizer}, {variant.sharding} ({variant.engine})"
    return f"{processes(variant.procs)} with {way}"
