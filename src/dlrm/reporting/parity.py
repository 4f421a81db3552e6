"""The page of `dlrm parity`: losses of several processes beside those of one."""

from dlrm.reporting.charts.curves import Window, curves, line, line_keys, scale
from dlrm.reporting.charts.drawing import COLOR, Figure, Key, drawing, labels, level, logarithmic
from dlrm.reporting.page import Page
from dlrm.training.parity import Parity

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
    if (diverged := parity.with_verdict("diverged")) and not parity.with_verdict("different"):
        names = dict.fromkeys(outcome.variant.optimizer for outcome in diverged)
        reached = max(max(parity.alone[name]) for name in names)
        return (
            f"Nothing can be told of {', '.join(names)}: the loss of one process diverges, to "
            f"{reached:,.4g}, and any rounding then ends elsewhere. Try a smaller --optim.lr."
        )
    way = f"{worst.variant.optimizer}, {worst.variant.sharding} ({worst.variant.engine})"
    off = (
        f"the losses of {count - len(equal)} of {count} ways to train are off by more than "
        f"{parity.tolerance:g}, at most by {largest:.1e}, in step {step} of "
        f"{processes(worst.variant.procs)} with {way}."
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


def page(parity: Parity) -> Page:
    """Return the page of a comparison of processes."""
    config = parity.config
    about = (
        f"{config.data}, {config.precision}, {config.loader.batch_size:,} samples a step, "
        f"seed {config.seed}"
    )
    return Page(
        kind="dlrm parity",
        title=f"{config.model.name} on several processes",
        about=about,
        verdict=conclusion(parity),
        template="parity.html",
        shown={"parity": parity, "charts": [_losses(parity), _differences(parity)]},
    )


def _losses(parity: Parity) -> Figure:
    lines = [
        line(name, role, enumerate(losses, start=1))
        for (name, losses), role in zip(parity.alone.items(), ROLES, strict=False)
    ]
    note = "Those of all other ways lie upon these lines." if parity.holds else ""
    return curves("loss", "Loss of one process", lines, "loss of a batch", note=note)


def _differences(parity: Parity) -> Figure:
    lines = [
        line(
            among(parity, world),
            ROLES[at % len(ROLES)],
            [(step, max(FLOOR, d)) for step, d in enumerate(parity.envelope(world), start=1)],
        )
        for at, world in enumerate(sorted({outcome.variant.procs for outcome in parity.compared}))
    ]
    ends = [float(end) for curve in lines for end in (curve.y.min(), curve.y.max())]
    with drawing("difference", "Largest difference to it") as (figure, ax):
        if parity.tolerance > 0:
            level(ax, parity.tolerance, "baseline")
            ends.append(parity.tolerance)
        scale(ax, Window(min(ends) / 2, max(ends) * 4), lines)
        logarithmic(ax.yaxis, lambda d: "0" if d < 1.5 * FLOOR else f"{d:.0e}".replace("e-0", "e-"))
        for curve in lines:
            ax.plot(curve.x, curve.y, color=COLOR[curve.role], lw=1.4)
        labels(ax, "training step", "difference of the loss")
    tolerance = Key(f"tolerance, {parity.tolerance:g}", "baseline", dashes="1.5 2")
    figure.note, figure.legend = ROUNDING, [*line_keys(lines), tolerance]
    return figure
