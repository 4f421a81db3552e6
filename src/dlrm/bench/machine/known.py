"""What is known of this machine: its ceilings, and the cost model fitted to its steps."""

import platform
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import torch
from rich.progress import Progress

from dlrm import __version__, terminal
from dlrm.bench.machine import measure
from dlrm.bench.watch import Watch
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import facts
from dlrm.planning.machine import Machine, keep, kept
from dlrm.training.environment import environment


def known() -> Machine:
    """Return what is kept of this machine; measured and kept first where nothing is.

    That takes half a minute, and nothing else should compute meanwhile.
    """
    profile = kept()
    if profile is not None and profile.ceilings.quiet and _fitted(profile):
        return profile
    with terminal.progress() as bar, Watch() as watch:
        machine = measured(bar)
    if kept() != machine:
        why = watch.seen.warning or "measurements were disturbed, or the cache cannot be written"
        terminal.err.print(
            f"The limits of this machine are not kept, and measured again next time: {why}",
            soft_wrap=True,
            highlight=False,
        )
    return machine


def _fitted(machine: Machine) -> bool:
    """Return whether its cost model is there, can be read, and is of these kernels."""
    from dlrm.bench.cost.fit import Costs

    here = {"torch": torch.__version__, "dlrm": __version__}
    if any(machine.versions.get(name) != version for name, version in here.items()):
        return False
    try:
        Costs.from_dict(machine.costs or {})
    except (KeyError, TypeError, ValueError):
        return False
    return True


def measured(bar: Progress) -> Machine:
    """Measure this machine, keep what was found unless another program computed, and return it.

    Args:
        bar: Where the progress is shown.

    """
    from dlrm.bench.cost import calibrate

    with Watch() as watch:
        task = bar.add_task("measuring this machine", total=measure.TICKS)
        ceilings = measure.measure(lambda: bar.advance(task))
        task = bar.add_task("fitting its cost model", total=calibrate.STEPS)
        costs = calibrate.calibrate(facts(), ceilings, lambda: bar.advance(task))
    machine = made(ceilings, costs)
    # What was disturbed is no limit of the machine.
    if ceilings.quiet and watch.seen.warning is None:
        # Where nothing can be written, it is measured each time.
        with suppress(OSError):
            keep(machine)
    return machine


def made(ceilings: Ceilings, costs: dict[str, Any] | None = None) -> Machine:
    """Return this machine, just measured, with the cost model fitted beside its ceilings."""
    known_facts = environment()
    return Machine(
        facts=facts(),
        ceilings=ceilings,
        versions={
            **{name: str(known_facts[name]) for name in ("dlrm", "python", "torch")},
            "system": platform.system(),
        },
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        costs=costs,
    )
