"""`dlrm bench ops`: single operators over sweeps of settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.known import known
from dlrm.bench.operator import Setting
from dlrm.bench.operators import OPERATORS
from dlrm.bench.sweep import candidates, sweep, values
from dlrm.bench.timed import Outcome
from dlrm.bench.watch import Watch
from dlrm.nn import precision as precisions
from dlrm.planning.machine import Machine
from dlrm.planning.quantities import counts, words
from dlrm.reporting import bench


def bench_ops(
    operators: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    *,
    batch: str = "128,2048,16384",
    tables: str = "8",
    rows: str = "10k,1M",
    dim: str = "16,64",
    pooling: str = "1",
    ids: str = "uniform",
    precision: str = "auto",
    storage: str = "fp32",
    optim: str = "sgd",
    widths: str = "512-256-64",
    threads: str = "0",
    rounds: int = 11,
    out: Path | None = None,
    html: Path | None = None,
) -> "OpsResult":
    """Time single operators of a training step, each by itself, over sweeps of settings.

    Every flag takes a list, separated by commas; each operator is measured on all combinations of
    what matters to it, round by round beside each other. ms is cold: inputs and results rotate past
    the last-level cache. warm is on one input again and again, which stays there.

    The operators:
      lookup        rows of the tables, forwards
      update        gradients of rows, and the optimizer that applies them
      interaction   dot products of all pairs, forwards and backwards
      mlp           all layers, forwards and backwards
      loss          binary cross-entropy, forwards and backwards
      dense_update  the optimizer over the parameters of an MLP
      loader        batches from a prepared dataset, shuffled
      exchange      vectors to another process of this machine, gradients back

    Beside each figure stands its share of the roofline: the least time that its arithmetic and its
    memory accesses take on this machine, whose ceilings are measured once and kept (dlrm bench
    machine).

    Args:
        operators: Some of them; all by default.
        batch: Batch sizes.
        tables: Numbers of tables.
        rows: Rows of each table, such as 10k,1M.
        dim: Numbers of a row.
        pooling: Ids of a sample in each table; above 1 their rows are added up.
        ids: uniform, zipf (by a power law).
        precision: Type of products: fp32, bf16; auto is bf16 where the CPU multiplies it natively.
        storage: Storage of the tables: fp32, bf16, bf16_nearest, split.
        optim: Of tables and MLP: sgd, adagrad, rowwise_adagrad, adam.
        widths: Of the MLP: inputs, then outputs of each layer, such as 512-256-64.
        threads: 0 for as many as torch takes.
        rounds: Timed rounds.
        out: Rows of results are appended to this file, as JSON lines.
        html: They are drawn as one page into this file.

    Raises:
        ConfigError: A setting has no meaning, or does not fit into memory.

    """
    every = torch.get_num_threads()
    lists: dict[str, list[Any]] = {
        **{
            name: list(dict.fromkeys(counts(name, text)))
            for name, text in (
                ("batch", batch), ("tables", tables), ("rows", rows), ("dim", dim),
                ("pooling", pooling),
            )
        },
        "ids": words(ids),
        "precision": list(dict.fromkeys(map(precisions.resolve, words(precision)))),
        "storage": words(storage),
        "optim": words(optim),
        "widths": [tuple(counts("widths", word, between="-")) for word in words(widths)],
        "threads": [count or every for count in counts("threads", threads, least=0)],
    }  # fmt: skip
    named = [name for text in operators for name in words(text)]
    names = list(OPERATORS) if not named or named == ["all"] else named
    chosen = candidates(names, lists, max(lists["threads"]))
    bar = terminal.progress()
    task = bar.add_task("timing", total=len(chosen) * (rounds + 1))
    outcomes = sweep(chosen, rounds, lambda count: bar.advance(task, count))
    machine = known()
    measured: list[dict[str, Any]] = []
    stopped = False
    with Watch() as watch, bar:
        try:
            for more in outcomes:
                measured += _rows(more, machine, watch, out)
        except KeyboardInterrupt:
            if not measured:
                raise
            stopped = True
    if html is not None:
        bench.write(html, [results.row("machine", machine.measured()), *measured])
    return OpsResult(
        rows=measured,
        varied=tuple(name for name, several in lists.items() if len(several) > 1),
        left_out=len(chosen) - len(measured),
        stopped=stopped,
        warning=watch.seen.warning,
        machine=machine.fingerprint,
        page=html,
    )


def _rows(
    outcomes: Sequence[Outcome], machine: Machine, watch: Watch, out: Path | None
) -> list[dict[str, Any]]:
    """Return outcomes as rows, and append them to the file."""
    seen = watch.seen.to_dict()
    rows = [results.row("ops", seen | values(outcome, machine.ceilings)) for outcome in outcomes]
    if out is not None:
        results.save(rows, out)
    return rows


Row = Mapping[str, Any]

SETTINGS = tuple(field.name for field in fields(Setting))
WIDE = 0.25
"""Half of an interval as a share of the figure."""
HIDDEN = 1.2
"""Times that something warm is as fast as cold, from which on it is worth a sentence."""
SHARE_LIMIT = 1.1
"""Largest share of the roofline; one above it says that the limits were measured in worse times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpsResult:
    """Times of single operators."""

    rows: list[dict[str, Any]]
    """One a candidate, of the suite `ops`."""
    varied: tuple[str, ...]
    """Settings of which there were several."""
    left_out: int
    """Candidates that were not measured any more."""
    stopped: bool
    """Whether the user stopped it."""
    warning: str | None
    """Why figures are doubtful."""
    machine: str
    """Fingerprint of the hardware."""
    page: Path | None = None

    @property
    def status(self) -> int:
        """Exit status, as of any command that the user stopped."""
        return 130 if self.stopped else 0

    @property
    def failed(self) -> int:
        """Candidates that raised something."""
        return sum(row["error"] is not None for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "machine": self.machine,
            "measured": len(self.rows) - self.failed,
            "failed": self.failed,
            "left_out": self.left_out,
            "stopped": self.stopped,
            "warning": self.warning,
            "verdict": " ".join(sentences(self.rows)),
            "report": str(self.page) if self.page else None,
            "rows": self.rows,
        }

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        for name in dict.fromkeys(row["operator"] for row in self.rows):
            parts += [self._table([row for row in self.rows if row["operator"] == name]), ""]
        parts.append(
            "ms: inputs and results past the last-level cache; ±: its 95% interval; warm: on one "
            "input, which stays there; limit: share of the roofline."
        )
        parts += sentences(self.rows)
        if self.failed:
            parts.append(Text(f"{self.failed} failed.", style="bold"))
        if self.stopped:
            parts.append(Text(f"Stopped: {self.left_out} were not measured.", style="bold"))
        if self.warning:
            parts.append(Text(f"Doubtful: {self.warning}.", style="bold"))
        if self.page:
            parts.append(f"Page: {self.page}")
        return Group(*parts)

    def _table(self, rows: Sequence[Row]) -> Table:
        name = rows[0]["operator"]
        of_it = [name for name in SETTINGS if rows[0][name] is not None]
        varied = [name for name in of_it if name in self.varied]
        same = ", ".join(
            f"{name} {_setting_text(rows[0][name])}" for name in of_it if name not in varied
        )
        grid = Table(
            title=f"{name}: {OPERATORS[name].about} ({same})",
            title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False,
            padding=(0, 0, 0, 1),
        )  # fmt: skip
        # On a narrow screen settings are folded; figures stay whole.
        for column in varied:
            grid.add_column(column, justify="right", overflow="fold")
        for column in ("ms", "±", "warm", "GFLOP/s", "GB/s", "limit"):
            grid.add_column(column, justify="right", no_wrap=True)
        grid.add_column("bound by", no_wrap=True)
        for row in rows:
            cells = [_setting_text(row[name]) for name in varied]
            if row["error"] is not None:
                grid.add_row(*cells, "failed", *[""] * 5, Text(row["error"]))
                continue
            grid.add_row(*cells, *_figures(row))
        return grid


def sentences(rows: Sequence[Row]) -> list[str]:
    """Return what the figures say: what binds, how far from the limit, what a cache would hide.

    Of figures with wide intervals nothing is said.
    """
    measured = [row for row in rows if row["error"] is None]
    there = [row for row in measured if _width(row) <= WIDE]
    lines = []
    if wide := len(measured) - len(there):
        lines.append(f"{wide} of {len(measured)} figures vary too much to say anything of them.")
    lines += _bounds(there)
    lines += _by_rows(there)
    hidden = max(there, key=_hidden, default=None)
    if hidden is not None and _hidden(hidden) > HIDDEN:
        lines.append(
            f"One input again and again would have made {_named(hidden)} look "
            f"{_hidden(hidden):.1f} times as fast."
        )
    over = max((row for row in there if row["bound"]), key=_share, default=None)
    if over is not None and _share(over) > SHARE_LIMIT:
        lines.append(
            f"{_named(over).capitalize()} is {_share(over):.1f} times as fast as its limit, which "
            "was measured too low: with a slower kernel, or in slower times; dlrm bench machine "
            "measures it again."
        )
    return lines


def _bounds(rows: Sequence[Row]) -> list[str]:
    """Say what binds each operator at the largest batch, where it takes the longest."""
    largest = max((row["batch"] for row in rows if row["batch"] is not None), default=None)
    longest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["ms"]):
        if row["bound"] and row["batch"] in (largest, None):
            longest[row["operator"]] = row
    judged = [row for name in OPERATORS if (row := longest.get(name))]
    if not judged:
        return []
    by: dict[str, list[str]] = {}
    for row in judged:
        by.setdefault(row["bound"], []).append(row["operator"])
    bounds = "; ".join(f"{_and(names)} by {bound}" for bound, names in by.items())
    where = "" if largest is None else f" at batch {largest:,}"
    lines = [f"Bound{where}: {bounds}."]
    least, most = min(judged, key=_share), max(judged, key=_share)
    if least is not most:
        lines.append(
            f"Nearest to its limit there is {most['operator']}, at {_share(most):.0%}; furthest "
            f"{least['operator']}, at {_share(least):.0%}."
        )
    return lines


def _share(row: Row) -> float:
    return row["roofline_share"]


def _hidden(row: Row) -> float:
    return row["ms"] / row["warm_ms"]


def _width(row: Row) -> float:
    """Return half of the interval, as a share of the figure."""
    return (row["ms_high"] - row["ms_low"]) / 2 / row["ms"]


def _named(row: Row) -> str:
    return row["operator"] + (f" at batch {row['batch']:,}" if row["batch"] else "")


def _by_rows(rows: Sequence[Row]) -> list[str]:
    """Say what longer tables cost, where several lengths were tried."""
    lines = []
    for name in dict.fromkeys(row["operator"] for row in rows):
        timed_rows = [row for row in rows if row["operator"] == name and row["rows"] is not None]
        lengths = sorted({row["rows"] for row in timed_rows})
        if len(lengths) < 2:
            continue
        short, long = lengths[0], lengths[-1]
        pairs: dict[tuple[Any, ...], dict[int, float]] = {}
        for row in timed_rows:
            rest = tuple(row[name] for name in SETTINGS if name != "rows")
            pairs.setdefault(rest, {})[row["rows"]] = row["ms"]
        ratios = [pair[long] / pair[short] for pair in pairs.values() if {short, long} <= {*pair}]
        if ratios:
            lines.append(
                f"{name.capitalize()} takes {median(ratios):.1f} times as long with "
                f"{long:,} rows a table as with {short:,}."
            )
    return lines


def _figures(row: Row) -> list[str]:
    share = row["roofline_share"]
    return [
        _ms(row["ms"]),
        f"{_width(row):.0%}" if _width(row) < 1 else "> 99%",
        _ms(row["warm_ms"]),
        f"{row['gflops_per_s']:.1f}" if row["flops"] else "",
        f"{row['gb_per_s']:.1f}",
        "" if share is None else f"{share:.0%}",
        (row["bound"] or "").removeprefix("memory "),
    ]


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _setting_text(value: object) -> str:
    """Return a setting, long round numbers as flags take them: 10k, 1M."""
    if not isinstance(value, int):
        return str(value)
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if value >= 10**4 and value % size == 0:
            return f"{value // size}{unit}"
    return f"{value:,}"


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
