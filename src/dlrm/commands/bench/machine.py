"""`dlrm bench machine`: what this machine is and can do, measured and kept."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.known import measured
from dlrm.bench.watch import Seen, Watch
from dlrm.commands.plan_result import bar
from dlrm.planning import machine as machines
from dlrm.planning.ceilings import gather_name
from dlrm.planning.facts import COUNTERS, Cache, Facts
from dlrm.planning.machine import Machine
from dlrm.terminal import human_bytes


def bench_machine(*, out: Path | None = None, html: Path | None = None) -> "MachineResult":
    """Measure what this machine can do, and keep it for the predictions of other commands.

    Cores, caches, instruction sets and memory; copies, matrix products, rows read at random from
    small tables to large, each with one thread up to all; then steps of random small models, to
    which the cost model of `dlrm bench train` is fitted. OMP_NUM_THREADS sets how many threads all
    are. Nothing else may compute meanwhile.

    Args:
        out: A row of results is appended to this file, as a JSON line.
        html: The machine is drawn as one page, which needs no network.

    Raises:
        ConfigError: Memory is too short.

    """
    before = machines.load()
    with terminal.progress() as bar, Watch() as watch:
        now = measured(bar)
    there = machines.load()
    result = MachineResult(
        machine=now,
        before=before,
        seen=watch.seen,
        kept=machines.path(now) if there == now else None,
        out=out,
        html=html,
    )
    if out is not None:
        results.save([result.row()], out)
    if html is not None:
        from dlrm.reporting import bench as page

        page.write(html, [result.row()])
    return result


CHANGED = 0.1
"""A ceiling that differs by more from the last measurement is named."""
NAMED = 6
"""Such ceilings at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineResult:
    """A machine, just measured."""

    machine: Machine
    before: Machine | None
    """What was kept of it until now."""
    seen: Seen
    """What else it did meanwhile."""
    kept: Path | None
    """None where the folder cannot be written, or a better one stands there."""
    out: Path | None
    html: Path | None

    def row(self) -> dict[str, Any]:
        """Return a row of results."""
        values = {**self.machine.measured(), **self.seen.to_dict()}
        return results.row("machine", values)

    def to_dict(self) -> dict[str, Any]:
        """Return the machine JSON-ready."""
        return {
            "fingerprint": self.machine.fingerprint,
            **self.machine.to_dict(),
            **self.seen.to_dict(),
            "changed": self.changed(),
            "kept": str(self.kept) if self.kept else None,
            "out": str(self.out) if self.out else None,
            "html": str(self.html) if self.html else None,
        }

    def changed(self) -> dict[str, float]:
        """Return the ceilings that differ from those kept before: name -> now / before."""
        if self.before is None:
            return {}
        now, before = (machine.ceilings.rates() for machine in (self.machine, self.before))
        ratios = {name: rate / before[name] for name, rate in now.items() if name in before}
        return {name: r for name, r in ratios.items() if max(r, 1 / r) > 1 + CHANGED}

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [
            _facts(self.machine.facts), "", self._ceilings(), "", self._curve(), "",
        ]  # fmt: skip
        parts += [Text(f"{line}.") for line in self._notes()]
        return Group(*parts)

    def _ceilings(self) -> Table:
        """Rates by threads."""
        can = self.machine.ceilings
        counts = sorted(can.copy)
        heads = [f"{count} thread{'s' if count > 1 else ''}" for count in counts]
        scaling = [f"{counts[-1]} : 1"] if len(counts) > 1 else []
        grid = terminal.table("Ceilings", "", *heads, *scaling, "")
        shortest = min(point.row_bytes for point in can.gather)
        largest = max(point.table_bytes for point in can.gather)
        random = f"million/s, {shortest} bytes, from {_binary(largest)}"

        def add(
            name: str, unit: str, size: float, rates: Mapping[int, float], key: Callable[[int], str]
        ) -> None:
            cells = [self._cell(rates[n] / size, key(n)) for n in counts]
            ratio = [f"{rates[counts[-1]] / rates[1]:.2f}"] if scaling else []
            grid.add_row(name, *cells, *ratio, unit)

        add("copy", "GB/s, read and written", 1e9, can.copy, lambda n: f"copy {n}")
        for name, rates in can.flops.items():
            add(f"products, {name}", "GFLOP/s", 1e9, rates, lambda n, name=name: f"{name} {n}")
        add(
            "random rows",
            random,
            1e6,
            can.gather_by_threads,
            lambda n: gather_name(shortest, largest, n),
        )
        blank = [""] * (len(counts) - 1 + len(scaling))
        grid.add_row("smallest call", self._cell(can.call_s * 1e6, "call"), *blank, "µs")
        grid.columns[-1].justify = "left"
        return grid

    def _cell(self, value: float, name: str) -> str:
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        return f"{text} ±{self.machine.ceilings.spread.get(name, 0.0):.0%}"

    def _curve(self) -> Table:
        """Rows read at random, by the size of the table."""
        can = self.machine.ceilings
        lengths = sorted({point.row_bytes for point in can.gather})
        rates = {(p.table_bytes, p.row_bytes): 1e-6 / p.row_s for p in can.gather}
        heads = [head for length in lengths for head in (f"{length} bytes", "")]
        title = f"Random rows, million/s, {can.threads} threads, by the size of the table"
        grid = terminal.table(title, "table", *heads, "fits in")
        for table in sorted({point.table_bytes for point in can.gather}):
            cells: list[RenderableType] = []
            for length in lengths:
                rate = rates[table, length]
                most = max(other for (_, size), other in rates.items() if size == length)
                name = gather_name(length, table, can.threads)
                cells += [self._cell(rate, name), bar(rate / most)]
            grid.add_row(_binary(table), *cells, _place(table, self.machine.facts.caches))
        return grid

    def _notes(self) -> Iterator[str]:
        """Yield what else there is to say."""
        yield "±: half of the 95% interval of the median, within this measurement"
        if self.before is not None:
            changed = sorted(self.changed().items(), key=lambda named: -abs(named[1] - 1))
            text = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in changed[:NAMED])
            text += f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            total = len(self.machine.ceilings.rates())
            yield (
                f"Since {self.before.taken[:10]}, {len(changed)} of {total} ceilings changed by "
                + (f"more than {CHANGED:.0%}" + (f": {text}" if text else ""))
            )
        if not self.machine.ceilings.quiet:
            yield "No ceilings: something else computed all the time, so they may be far too low"
        if self.seen.warning:
            yield f"Doubtful: {self.seen.warning}"
        if self.machine.costs is not None:
            error = f"{self.machine.costs.error:.0%}"
            yield f"Cost model: median error {error} on steps that it was not fitted to"
        yield f"Fingerprint: {self.machine.fingerprint}"
        if self.kept:
            yield f"Kept: {_short(self.kept)}"
        elif self.seen.warning or not self.machine.ceilings.quiet:
            yield "Not kept, because it was disturbed: it is measured again next time"
        else:
            yield "Not kept: its folder cannot be written"
        if self.out:
            yield f"Row: {self.out}"
        if self.html:
            yield f"Page: {self.html}"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _facts(facts: Facts) -> Table:
    grid = Table.grid(padding=(0, 2))
    virtual = {True: ", virtual machine", False: "", None: ""}[facts.virtual]
    cores = f"{facts.cores} core{'s' if facts.cores > 1 else ''}{virtual}"
    counters = ", ".join(f"{n} {'' if n in facts.counters else 'un'}available" for n in COUNTERS)
    grid.add_row(Text(facts.cpu, "bold"), cores)
    grid.add_row("instruction sets", " ".join(facts.instructions) or "unknown")
    grid.add_row("caches", ", ".join(map(_cache, facts.caches)) or "unknown")
    grid.add_row("memory", human_bytes(facts.memory_bytes) if facts.memory_bytes else "unknown")
    grid.add_row("counters", counters)
    return grid


def _cache(cache: Cache) -> str:
    text = f"L{cache.level} {_binary(cache.size_bytes)}"
    text += f" for {cache.cores} cores" if cache.cores > 1 else " a core"
    return text + (
        f", {cache.instances} of them" if cache.instances > 1 and cache.cores > 1 else ""
    )


def _place(table_bytes: int, caches: tuple[Cache, ...]) -> str:
    """Say which cache holds a table."""
    return next((f"L{c.level}" for c in caches if table_bytes <= c.size_bytes), "memory")


def _binary(size: float) -> str:
    """Return a size in powers of 1024, as data sheets have it."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
