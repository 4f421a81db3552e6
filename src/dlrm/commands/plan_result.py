"""What `dlrm plan` found: on a terminal, or JSON-ready."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.nn.tables import tables_of
from dlrm.planning.placement import Plan
from dlrm.planning.planned import Alternative, Planned
from dlrm.planning.scaling import Simulated
from dlrm.planning.simulate import step_parts
from dlrm.planning.times import Times
from dlrm.reporting.words import duration
from dlrm.terminal import human_bytes

MOST_DEVICES, MOST_TABLES = 16, 8
"""Most devices and tables that are shown one by one."""
TIMES = (
    "basis", "step_s", "exchange_s", "samples_per_s", "train_s", "evaluation_s", "saving_s",
    "epoch_s",
)  # fmt: skip
"""What is said of times."""
BAR = 10
"""Letters of a full bar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanResult:
    """Memory, disk and time that a run would need, and where its tables would lie."""

    name: str
    """Name of the data."""
    planned: Planned
    times: Times | None
    """None where nothing was measured or described."""
    alternatives: list[Alternative]
    """What to change, where it does not fit."""
    page: Path | None
    simulated: list[Simulated] = field(default_factory=list)
    """Steps of this run on more and more devices, as the simulator predicts them."""
    simulated_basis: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        run, footprint, times = self.planned, self.planned.footprint, self.times
        plan, traffic, config = run.plan, run.traffic, run.config
        return {
            "data": self.name,
            "model": config.model.name,
            "optim": config.optim.name,
            "storage": tables_of(config.model).storage,
            "batch_size": config.loader.batch_size,
            "world": run.world.size,
            "device_memory_bytes": run.world.memory_bytes,
            "sharding": run.world.sharding,
            "fits": run.fits,
            "reason": run.reason,
            "parameters": run.contents.parameters,
            "tables": len(run.contents.tables),
            "tables_bytes": run.contents.tables_bytes,
            "dense_bytes": footprint.dense_bytes,
            "process_bytes": footprint.process_bytes,
            **{
                f"process_{part}_bytes": getattr(footprint, f"{part}_bytes")
                for part in ("tables", "activations", "loader", "libraries")
            },
            **{
                f"{part}_bytes": getattr(footprint, f"{part}_bytes")
                for part in ("mapped", "resident", "checkpoint", "checkpoints", "dataset", "disk")
            },
            "flops_per_sample": run.cost.flops,
            "memory_bytes_per_sample": self._memory_bytes_per_sample,
            "exchange_bytes_per_sample": traffic.sample_bytes if traffic else None,
            "exchange_bytes_per_step": traffic.step_bytes if traffic else None,
            "memory_imbalance": plan.memory_imbalance if plan else None,
            "work_imbalance": plan.work_imbalance if plan else None,
            # Nothing where nothing was measured or described.
            **{name: getattr(times, name, None) for name in TIMES},
            "devices": self._devices(),
            "placement": _placement(plan) if plan else [],
            "alternatives": [asdict(result) for result in self.alternatives],
            "simulated": [result.to_dict() for result in self.simulated],
            "page": str(self.page) if self.page else None,
        }

    @property
    def _memory_bytes_per_sample(self) -> float | None:
        run = self.planned
        if run.plan is None:
            return None
        samples = -(-run.config.loader.batch_size // run.world.size)
        return sum(part.work.bytes for part in step_parts(run)) / samples

    def _devices(self) -> list[dict[str, Any]]:
        """Return what each device has and does; nothing where the tables do not fit."""
        plan, sent = self.planned.plan, self.planned.traffic
        if plan is None or sent is None:
            return []
        shards = [plan.on(rank) for rank in range(plan.world)]
        rest = self.planned.footprint.rest_bytes
        rows = zip(plan.memory_bytes, plan.work, sent.sent, shards, strict=True)
        return [
            {
                "rank": rank,
                "process_bytes": memory + rest,
                "tables_bytes": memory,
                "shards": len(held),
                "lookups": sum(map(plan.shard_lookups, held)),
                "work": work,
                "sent_bytes_per_sample": leaves,
            }
            for rank, (memory, work, leaves, held) in enumerate(rows)
        ]

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self.planned.plan is not None:
            parts += [_device_grid(self.name, self.planned, self._devices()), ""]
            parts += [_table_grid(self.planned.plan), ""]
        parts += [_takes_grid(self.planned, self.times, self._memory_bytes_per_sample), ""]
        if self.simulated:
            parts += [_simulated_grid(self.simulated, self.simulated_basis), ""]
        parts.append(_verdict(self.planned))
        if self.alternatives:
            parts += ["", _alternatives_grid(self.alternatives)]
        if self.page:
            parts.append(f"Page: {self.page}")
        return Group(*parts)


def _placement(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "name": table.name,
            "rows": table.num_embeddings,
            "dim": table.dim,
            "bytes": table.size_bytes,
            "kind": kind,
            "ranks": [shard.rank for shard in plan.of_table(t)],
        }
        for t, (table, kind) in enumerate(zip(plan.tables, plan.kinds, strict=True))
    ]


def _device_grid(name: str, run: Planned, devices: Sequence[dict[str, Any]]) -> RenderableType:
    """Return what is on each device."""
    plan, sent = run.plan, run.traffic
    assert plan is not None
    assert sent is not None
    batch = run.config.loader.batch_size
    grid = terminal.table(
        f"{run.config.model.name} on {name}, {_count(plan.world, 'device')}",
        "device", "memory", "", "tables", "ids a sample", "sent a step",
    )  # fmt: skip
    grid.columns[2].justify = "left"
    shown = list(devices)
    if len(shown) > MOST_DEVICES:
        shown = sorted(devices, key=lambda row: -row["process_bytes"])[: MOST_DEVICES - 1]
    for row in shown:
        step = row["sent_bytes_per_sample"] * batch + sent.step_bytes
        grid.add_row(
            str(row["rank"]),
            human_bytes(row["process_bytes"]),
            bar(row["process_bytes"] / run.world.memory_bytes),
            str(row["shards"]),
            f"{row['lookups']:.2f}",
            human_bytes(step),
        )
    if len(shown) < len(devices):
        least = min(row["process_bytes"] for row in devices)
        grid.add_row(f"{len(devices) - len(shown)} more", f"from {human_bytes(least)}")
    note = f"Bars are of {human_bytes(run.world.memory_bytes)}, a step has {batch:,} samples."
    if plan.world > 1:
        note += (
            f" Fullest device: {plan.memory_imbalance:.2f} times the mean; "
            f"busiest: {plan.work_imbalance:.2f} times."
        )
    return Group(grid, note)


def _table_grid(plan: Plan) -> RenderableType:
    """Return where the largest tables are."""
    order = sorted(range(len(plan.tables)), key=lambda t: -plan.tables[t].size_bytes)
    some = f"The largest of {len(order)} tables" if len(order) > MOST_TABLES else "Tables"
    grid = terminal.table(some, "table", "rows", "dim", "memory", "kind", "devices")
    for t in order[:MOST_TABLES]:
        table = plan.tables[t]
        grid.add_row(
            table.name,
            f"{table.num_embeddings:,}",
            str(table.dim),
            human_bytes(table.size_bytes),
            plan.kinds[t],
            ranges([shard.rank for shard in plan.of_table(t)]),
        )
    kinds = {kind: plan.kinds.count(kind) for kind in dict.fromkeys(plan.kinds)}
    note = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    return Group(grid, f"By kind: {note}.")


def _takes_grid(run: Planned, times: Times | None, moved: float | None) -> RenderableType:
    """Return what the run takes; `moved` is the memory that a sample moves, in bytes."""
    took = run.footprint
    grid = terminal.table("What it takes", "", "", "")
    grid.show_header = False
    grid.columns[2].justify = "left"
    dense = run.contents.parameters - sum(t.num_embeddings * t.dim for t in run.contents.tables)
    grid.add_row(
        "parameters", f"{run.contents.parameters:,}", f"{dense:,} of them outside of tables"
    )
    grid.add_row(
        "memory" if run.world.size == 1 else "memory of each",
        human_bytes(took.process_bytes),
        f"tables {human_bytes(took.tables_bytes)} with optimizer state, rest "
        f"{human_bytes(took.dense_bytes)}, activations {human_bytes(took.activations_bytes)}, "
        f"loader {human_bytes(took.loader_bytes)}, libraries {human_bytes(took.libraries_bytes)}",
    )
    grid.add_row(
        "disk",
        human_bytes(took.disk_bytes),
        f"up to {run.config.checkpoint.keep + 2} checkpoints of "
        f"{human_bytes(took.checkpoint_bytes)}, dataset {human_bytes(took.dataset_bytes)}",
    )
    parts = [] if moved is None else [f"{human_bytes(moved)} of memory moved"]
    if run.traffic is not None and run.world.size > 1:
        parts.append(f"{human_bytes(run.traffic.sample_bytes)} between devices")
        parts.append(f"and {human_bytes(run.traffic.step_bytes)} a step from each for sums")
    grid.add_row("a sample", amount(run.cost.flops, "FLOP"), ", ".join(parts))
    if times is not None:
        grid.add_row("speed", f"{times.samples_per_s:,.0f} samples/s", _basis(run, times))
        if times.train_s:
            grid.add_row("an epoch", duration(times.epoch_s), _epoch(times))
    return grid


def _basis(run: Planned, times: Times) -> str:
    """Say where a speed comes from."""
    rates = times.rates
    if rates is None:
        limits = times.bounds
        took = [short(s) for s in (limits.compute_s, limits.memory_s, limits.exchange_s)]
        fastest = run.config.loader.batch_size / limits.least_s
        return (
            f"at full rates: a step takes {short(times.step_s)}, as --simulate has it, of "
            f"{took[0]} compute, {took[1]} memory and {took[2]} exchange; "
            f"{fastest:,.0f} samples/s if all overlapped"
        )
    text = f"measured here: {short(rates.step_s)} a step"
    if run.world.size > 1:
        samples = -(-run.config.loader.batch_size // run.world.size)
        how = "with room for the tables" if run.plan is None else "as --simulate has it"
        text += (
            f" of {samples:,} samples; {short(times.step_s)} {how}, with "
            f"{short(times.exchange_s)} exchange"
        )
    if rates.ids != "data":
        text += "; ids by a power law"
    if rates.capped:
        text += "; tables cut to 1 GB"
    return text


def _epoch(times: Times) -> str:
    """Say what an epoch is made of."""
    if times.evaluation_s is None or times.saving_s is None:
        return "training alone"
    return (
        f"training {duration(times.train_s)}, evaluation {duration(times.evaluation_s)}, "
        f"saving {duration(times.saving_s)}"
    )


def _verdict(run: Planned) -> Text:
    """Say whether it fits."""
    need, have = run.footprint.process_bytes, run.world.memory_bytes
    if run.fits:
        where = "" if run.world.size == 1 else " on the fullest device"
        return Text(f"It fits: {human_bytes(need)} of {human_bytes(have)}{where}.", "bold green")
    return Text(f"It does not fit: {run.reason}.", "bold red")


def _alternatives_grid(alternatives: Sequence[Alternative]) -> RenderableType:
    """Return what would be needed instead."""
    grid = terminal.table("One thing changed", "flag", "what", "memory of each", "fits")
    grid.columns[1].justify = "left"
    for alternative in alternatives:
        fits = Text("yes", "green") if alternative.fits else Text("no", "red")
        grid.add_row(
            alternative.flag, alternative.what, human_bytes(alternative.process_bytes), fits
        )
    return grid


def bar(share: float) -> Text:
    """Return a bar of a share of 1."""
    eighths = max(1, round(min(share, 1.0) * BAR * 8))
    full, part = divmod(eighths, 8)
    drawn = "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
    return Text(drawn.ljust(BAR, "·"), "red" if share > 1 else "cyan")


def ranges(ranks: Sequence[int]) -> str:
    """Return numbers as people read them: `0-3, 7`; of many apart how many there are."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    if len(runs) > 4:
        return f"{len(ranks)} devices"
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def amount(value: float, unit: str) -> str:
    """Return an amount as people read it, e.g. `2.9 MFLOP`."""
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} T{unit}"


def short(seconds: float) -> str:
    """Return the duration of a part of a step, e.g. `1.7 ms`."""
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _count(number: int, what: str) -> str:
    """Return a number of things, e.g. `8 devices`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _simulated_grid(simulated: Sequence[Simulated], basis: str) -> RenderableType:
    """Return the time of a step by number of devices, what it is made of, and from where."""
    grid = terminal.table(
        "Simulated: ms of a step", "devices", "step", "MLPs", "tables", "sent", "sums", "waits",
        "rate/s", "share",
    )  # fmt: skip
    for result in simulated:
        step = result.step
        if step is None or result.samples_per_s is None or result.efficiency is None:
            grid.add_row(str(result.devices), "too small")
            continue
        parts = (
            step.total_s,
            step.bottom_s + step.top_s,
            step.lookup_s + step.update_s + step.routing_s,
            step.ids_s + step.vectors_s,
            step.sums_s,
            step.waiting_s,
        )
        grid.add_row(
            str(result.devices),
            *(f"{1e3 * part:.2f}" for part in parts),
            amount(result.samples_per_s, "").strip(),
            f"{result.efficiency:.0%}",
        )
    note = (
        f"A step has {simulated[-1].batch_size:,} samples on {simulated[-1].devices} devices. "
        "Sent: ids, vectors and gradients, as far as nothing hides them. Share: samples a second "
        "and device, of those of the fewest."
    )
    return Group(grid, note, basis)
