"""Which of several ways to compute the same is the fastest on this machine: measured once, kept.

    way = choices.fastest("mlp bf16 13-512-256 scores", ways, default, run)

Ways differ in the last bits of what they compute. So a choice holds as long as the machine, its
kernels, its threads and torch are the same; a checkpoint holds those of its run, which whoever goes
on with it, or scores with it, repeats. The default is taken where `$DLRM_KERNELS` says what runs
and where nothing is compiled; of several processes, the first chooses for all.

~/.cache/dlrm/machines/<compiled kernels>-<threads>.json
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock

import torch

from dlrm import compiler
from dlrm.files import write_json
from dlrm.ops.cpu import library

ROUNDS, LEAST_ROUNDS = 5, 2
"""How often each way is measured, in turn, after a round that warms up: at most and at least."""
ROUNDS_S = 0.03
"""Seconds after which no further round begins."""
CLEARLY = 0.9
"""Share of the default's time below which another way is chosen, so that noise changes nothing."""


class Choices:
    """What this process computes, and in which way."""

    def __init__(self):
        self._chosen: dict[str, str] = {}
        self._measures = True
        self._told = False
        self._lock = RLock()

    def fastest(
        self, what: str, ways: Sequence[str], default: str, run: Callable[[str], object]
    ) -> str:
        """Return the way to compute something: chosen before, kept, or measured now.

        Args:
            what: What is computed: its kind, its shape and its numbers; names the choice.
            ways: Names of all ways that this machine has.
            default: One of them, kept unless another takes clearly less time.
            run: Computes it once, in one of the ways; for measuring.

        """
        chosen = self._chosen.get(what)
        if chosen is not None and chosen in ways:
            return chosen
        with self._lock:
            if chosen is not None:
                self._tell(what, chosen)
            elif what in self._chosen:
                return self._chosen[what]
            chosen = self._kept_or_measured(what, ways, default, run)
            self._chosen[what] = chosen
        return chosen

    def used(self) -> dict[str, str]:
        """Return what this process has computed, and in which way; see `repeat`."""
        with self._lock:
            return dict(sorted(self._chosen.items()))

    def repeat(self, used: Mapping[str, str]) -> None:
        """Compute from now on as another process did, whose `used` this is.

        Where this machine lacks a way, another one is taken, and a line on standard error says so.
        """
        with self._lock:
            self._chosen.update(used)

    def repeat_only(self, used: Mapping[str, str]) -> None:
        """Repeat what another process did, and measure nothing else: its default is taken."""
        self._measures = False
        self.repeat(used)

    def _tell(self, what: str, way: str) -> None:
        if not self._told:
            sys.stderr.write(
                f"dlrm: the run computed {what} by {way}, which cannot run here: from now on its "
                "numbers differ in their last digits from what they would have been\n"
            )
        self._told = True

    def _kept_or_measured(
        self, what: str, ways: Sequence[str], default: str, run: Callable[[str], object]
    ) -> str:
        forced = "DLRM_KERNELS" in os.environ
        if len(ways) == 1 or forced or not self._measures or not library.name():
            return default
        kept = _read()
        if kept.get(what) not in ways:
            chosen = measured(ways, default, run)
            # Read again, because what was measured may have been made of what is measured, too.
            kept = {**_read(), what: chosen}
            # Where nothing can be written, each process measures.
            with suppress(OSError):
                kept_in().parent.mkdir(parents=True, exist_ok=True)
                write_json(kept_in(), {"torch": torch.__version__, "choices": kept})
        return kept[what]


choices = Choices()
"""Those of this process."""


def measured(ways: Sequence[str], default: str, run: Callable[[str], object]) -> str:
    """Return the fastest way: all take turns, and the least time of each counts."""
    least = dict.fromkeys(ways, math.inf)
    began = time.perf_counter()
    for number in range(ROUNDS + 1):
        if number > LEAST_ROUNDS and time.perf_counter() - began > ROUNDS_S:
            break
        for way in ways:
            started = time.perf_counter()
            run(way)
            if number:
                least[way] = min(least[way], time.perf_counter() - started)
    best = min(least, key=least.__getitem__)
    return best if least[best] < CLEARLY * least[default] else default


def kept_in() -> Path:
    """Return the file in which choices are kept."""
    name = f"{library.name()}-{torch.get_num_threads()}.json"
    return compiler.cache() / "machines" / name


def _read() -> dict[str, str]:
    """Return the choices that are kept; none where they are of another torch, or damaged."""
    try:
        kept = json.loads(kept_in().read_text())
        choices = kept["choices"] if kept["torch"] == torch.__version__ else {}
        return {str(what): str(way) for what, way in choices.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
