"""`dlrm bench machine`: what this machine is and can do, measured and kept."""

from pathlib import Path

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.machine.known import measured
from dlrm.bench.watch import Watch
from dlrm.commands.bench.machine_result import MachineResult
from dlrm.planning import machine as machines


def bench_machine(*, out: Path | None = None, html: Path | None = None) -> MachineResult:
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
    before = machines.kept()
    with terminal.progress() as bar, Watch() as watch:
        now = measured(bar)
    found = machines.kept()
    result = MachineResult(
        machine=now,
        before=before,
        seen=watch.seen,
        kept=machines.path(now) if found == now else None,
        out=out,
        html=html,
    )
    if out is not None:
        results.save([result.row()], out)
    if html is not None:
        from dlrm.reporting import bench as page

        page.write(html, [result.row()])
    return result
