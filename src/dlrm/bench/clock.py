"""Seconds of each stage of a step."""

import time
from collections import defaultdict
from statistics import median


class Clock:
    """A watch that reads the clock; `lap` ends a step."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], float] = defaultdict(float)
        self._began = 0.0
        self.laps: list[dict[tuple[str, str], float]] = []
        """Of each step: seconds of (stage, phase)."""

    def enter(self, stage: str, phase: str) -> None:
        """A stage begins."""
        self._began = time.perf_counter()

    def leave(self, stage: str, phase: str) -> None:
        """It ends."""
        self._running[stage, phase] += time.perf_counter() - self._began

    def lap(self) -> None:
        """A step has ended."""
        self.laps.append(dict(self._running))
        self._running.clear()

    @property
    def medians(self) -> dict[tuple[str, str], float]:
        """Seconds of each stage, the middle of all steps."""
        names = {name: None for lap in self.laps for name in lap}
        return {name: median(lap.get(name, 0.0) for lap in self.laps) for name in names}
