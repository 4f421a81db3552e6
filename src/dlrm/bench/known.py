"""What is known of this machine: its ceilings, and the cost model fitted to its steps."""

import platform
from contextlib import suppress
from datetime import UTC, datetime

import torch
from rich.progress import Progress

from dlrm import __version__, terminal
from dlrm.bench import calibrate
from dlrm.bench import machine as ceilings
from dlrm.bench.watch import Watch
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.costs import Costs
from dlrm.planning.facts import facts
from dlrm.planning.machine import Machine, load, save
from dlrm.training.new_run import environment


def known() -> Machine:
    """Return what is saved of this machine; measured and saved first where nothing is.

    That takes half a minute, and nothing else should compute meanwhile.
    """
    machine = load()
    now = {"torch": torch.__version__, "dlrm": __version__}
    if (
        machine is not None
        and machine.ceilings.quiet
        and machine.costs is not None
        # Fitted to other kernels, it says nothing of these.
        and all(machine.versions.get(name) == version for name, version in now.items())
    ):
        return machine
    with terminal.progress() as bar, Watch() as watch:
        machine = measured(bar)
    if load() != machine:
        why = watch.seen.warning or "measurements were disturbed, or the cache cannot be written"
        terminal.err.print(
            f"The limits of this machine are not kept, and measured again next time: {why}",
            soft_wrap=True,
            highlight=False,
        )
    return machine


def measured(bar: Progress) -> Machine:
    """Measure this machine, keep that unless another program computed, and return it."""
    with Watch() as watch:
        task = bar.add_task("measuring this machine", total=ceilings.TICKS)
        rates = ceilings.measure(lambda: bar.advance(task))
        task = bar.add_task("fitting its cost model", total=calibrate.STEPS)
        costs = calibrate.calibrate(facts(), rates, lambda: bar.advance(task))
    machine = here(rates, costs)
    # What was disturbed is no limit of the machine.
    if rates.quiet and watch.seen.warning is None:
        # Where nothing can be written, it is measured each time.
        with suppress(OSError):
            save(machine)
    return machine


def here(rates: Ceilings, costs: Costs | None = None) -> Machine:
    """Return this machine, just measured, with the cost model fitted beside its ceilings."""
    now = environment()
    versions = {name: str(now[name]) for name in ("dlrm", "python", "torch")}
    return Machine(
        facts=facts(),
        ceilings=rates,
        versions={**versions, "system": platform.system()},
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        costs=costs,
    )
