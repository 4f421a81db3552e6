"""The page of a plan: what lies on each device, and what it does."""

from collections.abc import Callable, Sequence

from dlrm.planning.placement import Kind, Plan, Shard
from dlrm.planning.planned import Planned
from dlrm.planning.scaling import Simulated
from dlrm.reporting.charts.bars import Piece, stacks
from dlrm.reporting.charts.drawing import Figure, Key
from dlrm.reporting.page import Page
from dlrm.reporting.words import compact
from dlrm.terminal import human_bytes

KINDS: dict[Kind, tuple[str, str]] = {
    "table": ("model", "whole tables"),
    "row": ("train", "rows of tables"),
    "column": ("test", "columns of tables"),
    "replicate": ("optimum", "copies"),
}
"""Colour of each kind of shard, and what it is called."""
STEP = (
    (("bottom", "top"), "model", "MLPs"),
    (("lookup", "update", "routing"), "train", "tables"),
    (("ids", "vectors"), "test", "exchange"),
    (("sums",), "optimum", "sums"),
    (("waiting",), "muted", "waiting"),
)
"""Parts of a step that are drawn together, their colour, and what they are called."""
SMALL = 0.01
"""Share of the highest stack below which parts are drawn together."""


def conclusion(run: Planned) -> str:
    """Return whether it fits, in a sentence."""
    need, have = human_bytes(run.footprint.process_bytes), human_bytes(run.world.memory_bytes)
    if run.plan is None:
        return f"It does not fit: {run.reason}."
    if run.world.size == 1:
        return f"It fits one device: {need} of {have}."
    return (
        f"It fits {run.world.size} devices: the fullest needs {need} of {have}. Memory is within "
        f"{run.plan.memory_imbalance:.2f}, and work within {run.plan.work_imbalance:.2f} times the "
        "mean."
    )


def page(run: Planned, name: str, simulated: Sequence[Simulated] = ()) -> Page:
    """Return the page of a plan on named data, and of the same run on more and more devices."""
    model, plan = run.config.model.name, run.plan
    sizes = [table.size_bytes for table in plan.tables] if plan else []
    return Page(
        kind="dlrm plan",
        title=f"{model} on {name}",
        about=f"{run.contents.parameters:,} parameters in {len(run.contents.tables)} tables and "
        "around them",
        verdict=conclusion(run),
        template="plan.html",
        shown={
            "devices": _charts(run),
            "scaling": _simulated(simulated),
            "plan": plan,
            "order": sorted(range(len(sizes)), key=lambda t: -sizes[t]),
        },
    )


def _charts(run: Planned) -> list[Figure]:
    plan = run.plan
    if plan is None:
        return [Figure("Memory", run.reason or "it does not fit")]
    rest, limit = Piece(run.footprint.rest_bytes, "muted", light=True), run.world.memory_bytes
    bars = [[rest, *pieces] for pieces in stacked(plan, plan.shard_bytes)]
    memory = stacks(
        "memory", "Memory of each device", bars,
        x_label="device", y_label="bytes", limit=limit, shown=human_bytes,
    )  # fmt: skip
    memory.note = f"Tables with their optimizer state; a device has {human_bytes(limit)}."
    bars = stacked(plan, lambda shard: plan.shard_lookups(shard) * shard.columns)
    per = "numbers read for a sample"
    work = stacks("work", "Work of each device", bars, x_label="device", y_label=per)
    work.note = "Ids are taken to be spread evenly over the rows of a table."
    work.legend = [
        Key(words, role, "dot") for kind, (role, words) in KINDS.items() if kind in plan.kinds
    ]
    memory.legend = [*work.legend, Key("everything else", "muted", "dot")]
    return [memory, work]


def _simulated(simulated: Sequence[Simulated]) -> list[Figure]:
    steps = [(result.devices, result.step) for result in simulated if result.step is not None]
    if not steps:
        return []
    bars = [
        [
            Piece(1e3 * sum(getattr(step, f"{part}_s") for part in parts), role, role == "muted")
            for parts, role, _ in STEP
        ]
        for _, step in steps
    ]
    texts = [compact(devices) for devices, _ in steps]
    figure = stacks("scaling", "Time of a step", bars, x_label="devices", y_label="ms", texts=texts)
    figure.note = "Simulated; what is hidden behind something else is not drawn."
    figure.legend = [Key(words, role, "dot") for _, role, words in STEP]
    return [figure]


def stacked(plan: Plan, value: Callable[[Shard], float]) -> list[list[Piece]]:
    """Return the parts of each device: large ones one by one, small ones of a kind together."""
    devices: list[dict[Kind, list[float]]] = [{} for _ in range(plan.world)]
    for shard in plan.shards:
        devices[shard.rank].setdefault(plan.kinds[shard.table], []).append(value(shard))
    small = SMALL * max(sum(map(sum, device.values())) for device in devices)

    def pieces(values: Sequence[float]) -> list[float]:
        large = sorted((value for value in values if value >= small), reverse=True)
        return [*large, sum(value for value in values if value < small)]

    return [
        [
            Piece(part, role)
            for kind, (role, _) in KINDS.items()
            for part in pieces(device.get(kind, []))
        ]
        for device in devices
    ]
