"""`dlrm bench ops`: single operators over sweeps of settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.machine.known import known
from dlrm.bench.ops import OPERATORS
from dlrm.bench.ops.rows import values
from dlrm.bench.ops.sweep import candidates, sweep
from dlrm.bench.ops.timed import Outcome
from dlrm.bench.watch import Watch
from dlrm.commands.bench.ops_lists import numbers, precisions, widths_of, words
from dlrm.commands.bench.ops_result import OpsResult
from dlrm.planning.machine import Machine
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
) -> OpsResult:
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
        precision: Of products: fp32, bf16; auto is bf16 where the CPU multiplies it natively.
        storage: Of the tables: fp32, bf16, bf16_nearest, split.
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
            name: numbers(name, text)
            for name, text in (
                ("batch", batch), ("tables", tables), ("rows", rows), ("dim", dim),
                ("pooling", pooling),
            )
        },
        "ids": words(ids),
        "precision": precisions(precision),
        "storage": words(storage),
        "optim": words(optim),
        "widths": widths_of(widths),
        "threads": [count or every for count in numbers("threads", threads, least=0)],
    }  # fmt: skip
    named = [name for each in operators for name in words(each)]
    names = list(OPERATORS) if not named or named == ["all"] else named
    found = candidates(names, lists, max(lists["threads"]))
    bar = terminal.progress()
    task = bar.add_task("timing", total=len(found) * (rounds + 1))
    outcomes = sweep(found, rounds, lambda count: bar.advance(task, count))
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
        described = machine.to_dict()
        names = ("facts", "ceilings", "costs")
        of_machine = results.row("machine", {name: described[name] for name in names})
        bench.write(html, [of_machine, *measured])
    return OpsResult(
        rows=measured,
        varied=tuple(name for name, each in lists.items() if len(each) > 1),
        left_out=len(found) - len(measured),
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
    rows = [results.row("ops", seen | values(each, machine.ceilings)) for each in outcomes]
    if out is not None:
        results.save(rows, out)
    return rows
