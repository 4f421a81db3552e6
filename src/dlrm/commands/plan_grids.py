"""What `dlrm plan` found, on a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.planning.placement import Plan
from dlrm.planning.planned import Alternative, Planned
from dlrm.planning.times import Times
from dlrm.terminal import human_bytes

MOST_DEVICES, MOST_TABLES = 16, 8
"""That are shown one by one."""
BAR = 10
"""Letters of a full bar."""


def device_grid(name: str, run: Planned, devices: Sequence[dict[str, Any]]) -> RenderableType:
    """Return what is on each device."""
    plan, sent = run.plan, run.traffic
    assert plan is not None
    assert sent is not None
    batch = run.config.loader.batch_size
    grid = terminal.table(
        f"{run.config.model.name} on {name}, {count(plan.world, 'device')}",
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


def table_grid(plan: Plan) -> RenderableType:
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
            ranges([shard.rank for shard in plan.of(t)]),
        )
    kinds = {kind: plan.kinds.count(kind) for kind in dict.fromkeys(plan.kinds)}
    note = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    return Group(grid, f"By kind: {note}.")


def takes_grid(run: Planned, times: Times | None, moved: float | None) -> RenderableType:
    """Return what the run takes; `moved` is the memory that a sample moves, in bytes."""
    took = run.footprint
    grid = terminal.table("What it takes", "", "", "")
    grid.show_header = False
    grid.columns[2].justify = "left"
    dense = run.kept.parameters - sum(t.num_embeddings * t.dim for t in run.kept.tables)
    grid.add_row("parameters", f"{run.kept.parameters:,}", f"{dense:,} of them outside of tables")
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
        grid.add_row("speed", f"{times.samples_per_s:,.0f} samples/s", basis(run, times))
        if times.train_s:
            grid.add_row("an epoch", duration(times.epoch_s), epoch(times))
    return grid


def basis(run: Planned, times: Times) -> str:
    """Say where a speed comes from."""
    if times.parts is not None:
        parts = times.parts
        took = [short(s) for s in (parts.compute_s, parts.memory_s, parts.exchange_s)]
        fastest = run.config.loader.batch_size / parts.least_s
        return (
            f"at full rates: a step takes {short(times.step_s)}, as --simulate has it, of "
            f"{took[0]} compute, {took[1]} memory and {took[2]} exchange; "
            f"{fastest:,.0f} samples/s if all overlapped"
        )
    rates = times.rates
    assert rates is not None
    text = f"measured here: {short(rates.step_s)} a step"
    if run.world.size > 1:
        samples = -(-run.config.loader.batch_size // run.world.size)
        text += (
            f" of {samples:,} samples on a machine like this, {short(times.exchange_s)} exchange"
        )
    if rates.ids != "data":
        text += "; ids by a power law"
    if rates.capped:
        text += "; tables cut to 1 GB"
    return text


def epoch(times: Times) -> str:
    """Say what an epoch is made of."""
    if times.evaluation_s is None or times.saving_s is None:
        return "training alone"
    return (
        f"training {duration(times.train_s)}, evaluation {duration(times.evaluation_s)}, "
        f"saving {duration(times.saving_s)}"
    )


def verdict(run: Planned) -> Text:
    """Say whether it fits."""
    need, have = run.footprint.process_bytes, run.world.memory_bytes
    if run.fits:
        where = "" if run.world.size == 1 else " on the fullest device"
        return Text(f"It fits: {human_bytes(need)} of {human_bytes(have)}{where}.", "bold green")
    return Text(f"It does not fit: {run.reason}.", "bold red")


def alternatives_grid(alternatives: Sequence[Alternative]) -> RenderableType:
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


def duration(seconds: float) -> str:
    """Return a duration as people read it, e.g. `3 min 20 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(number: int, what: str) -> str:
    """Return a number of things, e.g. `8 devices`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
