"""Which of several ways to compute the same is the fastest on this machine: measured once, kept.

    way = choices.fastest("mlp bf16 scores", ways, default, run)

Ways differ in the last bits of what they compute. So a choice holds as long as the machine, its
kernels, its threads and torch are the same; a checkpoint holds those of its run, which whoever goes
on with it, or scores with it, repeats. The default is taken where `$DLRM_KERNELS` says what runs
and where nothing is compiled; of several processes, the first chooses for all.

~/.cache/dlrm/machines/<compiled kernels>-<threads>.json
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from threading import Lock

import torch

from dlrm import compiler
from dlrm.files import write_json
from dlrm.ops.cpu import library

CLEARLY = 0.8
"""Share of the default's time below which another way has won a round."""
WON, LOST = 8, -5
"""Scores at which another way is taken, and at which it is out: a round won is 1, a lost one -2."""
HOPELESS = 2.0
"""Times the default's time from which on a lost round is worth `LOST`."""
TURN_S, LEAST_RUNS = 0.01, 3
"""Seconds and runs that a turn takes at least: the threads of whoever ran before wait for more work
meanwhile, and take the cores from who runs."""
MOST_S = 1.0
"""Seconds after which no further round begins."""


class Choices:
    """What this process computes, and in which way."""

    def __init__(self):
        self._chosen: dict[str, str] = {}
        self._measures = True
        self._told = False
        self._lock = Lock()

    def fastest(
        self, what: str, ways: Sequence[str], default: str, run: Callable[[str], object]
    ) -> str:
        """Return the way to compute something: chosen before, kept, or measured now.

        Args:
            what: What is computed: its kind and its numbers; names the choice.
            ways: Names of all ways that this machine has.
            default: One of them, kept unless another is clearly faster beyond doubt.
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

    def chosen(self, what: str) -> str | None:
        """Return the way that was chosen before to compute something; None where none was."""
        return self._chosen.get(what)

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
            kept |= {what: measured(ways, default, run)}
            # Where nothing can be written, each process measures.
            with suppress(OSError):
                kept_in().parent.mkdir(parents=True, exist_ok=True)
                write_json(kept_in(), {"torch": torch.__version__, "choices": kept})
        return kept[what]


choices = Choices()
"""Those of this process."""


def measured(ways: Sequence[str], default: str, run: Callable[[str], object]) -> str:
    """Return the fastest way: the default, unless another is clearly faster beyond doubt.

    In each round all take turns. Who takes less than `CLEARLY` of the default's time in nearly all
    of them has won after `WON` or a few more, who does in fewer than half of them is soon out.

    Source: Wald, "Sequential Tests of Statistical Hypotheses", 1945, for rounds that are won in 6
    of 7 cases where a way is faster, and in 3 of 7 where it is not.
    """
    scores = {way: 0 for way in ways if way != default}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    began = time.perf_counter()
    while time.perf_counter() - began < MOST_S:
        undecided = [way for way, score in scores.items() if LOST < score < WON]
        if not undecided:
            break
        for way in (default, *undecided):
            seconds[way].append(_turn(way, run))
        for way in undecided:
            ratio = seconds[way][-1] / seconds[default][-1]
            scores[way] += 1 if ratio < CLEARLY else -2 if ratio < HOPELESS else LOST
    faster = [way for way, score in scores.items() if score >= WON]
    return min(faster, key=lambda way: median(seconds[way]), default=default)


def _turn(way: str, run: Callable[[str], object]) -> float:
    """Return the least seconds of some runs in a row, to which a single gap does nothing."""
    took: list[float] = []
    while len(took) < LEAST_RUNS or sum(took) < TURN_S:
        began = time.perf_counter()
        run(way)
        took.append(time.perf_counter() - began)
    return min(took)


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
