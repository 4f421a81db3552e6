"""The page of a plan: what lies on each device, and what it does."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dlrm.files import write_bytes
from dlrm.planning.placement import Kind, Plan, Shard
from dlrm.planning.planned import Planned
from dlrm.planning.simulated import Simulated
from dlrm.reporting import charts
from dlrm.reporting.charts import Part
from dlrm.reporting.document import document
from dlrm.reporting.figures import absent, figure, key
from dlrm.reporting.markup import Html, bar, element
from dlrm.reporting.tables import table
from dlrm.reporting.words import compact
from dlrm.terminal import human_bytes

ROLES: dict[Kind, str] = {
    "table": "model",
    "row": "train",
    "column": "test",
    "replicate": "optimum",
}
NAMES: dict[Kind, str] = {
    "table": "whole tables",
    "row": "rows of tables",
    "column": "columns of tables",
    "replicate": "copies",
}
STEP = (
    (("bottom", "top"), "model", "MLPs"),
    (("lookup", "update", "routing"), "train", "tables"),
    (("ids", "vectors"), "test", "exchange"),
    (("sums",), "optimum", "sums"),
    (("waiting",), "muted", "waiting"),
)
"""Parts of a step that are drawn together, their colour, and what they are called."""
SMALL = 0.01
"""Of the highest stack, parts that are drawn together."""


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


def render(run: Planned, name: str, simulated: Sequence[Simulated] = ()) -> str:
    """Return the page; equal plans give equal pages."""
    model = run.config.model.name
    about = f"{run.kept.parameters:,} parameters in {len(run.kept.tables)} tables and around them"
    return document(
        f"{model}: dlrm plan",
        element(
            "header",
            bar("dlrm plan"),
            element("h1", f"{model} on {name}"),
            element("p", about, class_="made"),
            element("p", conclusion(run), class_="verdict"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "On each device"),
                element("div", *_charts(run), class_="grid"),
            ),
            _simulated(simulated),
            _tables(run.plan) if run.plan else None,
        ),
    )


def write(target: Path, run: Planned, name: str, simulated: Sequence[Simulated] = ()) -> Path:
    """Write the page and return where it is.

    Args:
        target: The file.
        run: The plan.
        name: Of the data.
        simulated: The same run on more and more devices.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    write_bytes(target, render(run, name, simulated).encode("utf-8", "replace"))
    return target


def _charts(run: Planned) -> list[Html]:
    plan = run.plan
    if plan is None:
        return [absent("Memory", run.reason or "it does not fit")]
    rest = run.footprint.rest_bytes
    memory = _stacks(plan, plan.shard_bytes)
    work = _stacks(plan, lambda shard: plan.shard_lookups(shard) * shard.columns)
    legend = [key(NAMES[kind], ROLES[kind], dot=True) for kind in ROLES if kind in plan.kinds]
    title = "Memory of each device"
    first = figure(
        title,
        [*legend, key("everything else", "muted", dot=True)],
        charts.stacks(
            "memory", title, [[Part(rest, "muted"), *parts] for parts in memory],
            run.world.memory_bytes, y_label="bytes", shown=human_bytes,
        ),
        f"Tables with their optimizer state; a device has {human_bytes(run.world.memory_bytes)}.",
    )  # fmt: skip
    title = "Work of each device"
    second = figure(
        title,
        legend,
        charts.stacks("work", title, work, y_label="numbers read for a sample", shown=compact),
        "Ids are taken to be spread evenly over the rows of a table.",
    )
    return [first, second]


def _simulated(simulated: Sequence[Simulated]) -> Html | None:
    steps = [(result.devices, result.step) for result in simulated if result.step is not None]
    if not steps:
        return None
    title = "Time of a step"
    drawn = charts.scaling(
        "scaling",
        title,
        [
            (
                devices,
                [
                    Part(sum(getattr(step, f"{part}_s") for part in parts) * 1e3, role)
                    for parts, role, _ in STEP
                ],
            )
            for devices, step in steps
        ],
    )
    legend = [key(words, role, dot=True) for _, role, words in STEP]
    text = "Simulated; what is hidden behind something else is not drawn."
    return element(
        "section",
        element("h2", "On more devices"),
        element("div", figure(title, legend, drawn, text), class_="grid"),
    )


def _stacks(plan: Plan, value: Callable[[Shard], float]) -> list[list[Part]]:
    """Return the parts of each device: large ones one by one, small ones of a kind together."""
    devices: list[dict[Kind, list[float]]] = [{} for _ in range(plan.world)]
    for shard in plan.shards:
        devices[shard.rank].setdefault(plan.kinds[shard.table], []).append(value(shard))
    highest = max(sum(map(sum, device.values())) for device in devices)
    return [
        [
            Part(part, ROLES[kind])
            for kind in ROLES
            for part in _lumped(device.get(kind, []), SMALL * highest)
        ]
        for device in devices
    ]


def _lumped(values: Sequence[float], small: float) -> list[float]:
    rest = sum(value for value in values if value < small)
    return [*sorted((value for value in values if value >= small), reverse=True), rest]


def _tables(plan: Plan) -> Html:
    order = sorted(range(len(plan.tables)), key=lambda t: -plan.tables[t].size_bytes)
    heads = ["Table", "Rows", "Dim", "Memory", "Kind", "Devices"]
    rows = []
    for t in order:
        held, shards = plan.tables[t], plan.of(t)
        where = str(shards[0].rank) if len(shards) == 1 else f"{len(shards)} devices"
        cells = [f"{held.num_embeddings:,}", str(held.dim), human_bytes(held.size_bytes)]
        rows.append(
            element(
                "tr",
                element("th", held.name, scope="row"),
                *(element("td", cell, class_="n") for cell in cells),
                element("td", plan.kinds[t]),
                element("td", where),
            )
        )
    grid = table(heads, rows, numbers=heads[1:4], caption="Largest first")
    return element("section", element("h2", "Tables"), grid)
