"""Bags of ids with the reuse pattern of a recorded trace.

A distribution file describes one table, in three lines of numbers separated by commas: the distinct
ids in order of first access; stack distances in ascending order, 0 for an id never seen before; and
the cumulative probability of each. Ids are drawn by drawing stack distances: 0 takes the oldest id,
d the one accessed d distinct ids ago, and either becomes the newest.
"""

from bisect import bisect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import RandomState

from dlrm.compat.batches import Bag
from dlrm.compat.random_data import DrawIds
from dlrm.errors import InputError

WARNING = (
    "WARNING: distribution is inconsistent with embedding table size "
    "(using mod to recover and continue)"
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """The reuse pattern of one table."""

    ids: tuple[int, ...]
    distances: tuple[int, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def read(cls, file: Path) -> "Distribution":
        """Read a distribution file.

        Raises:
            InputError: It is missing or is not what it should be.

        """
        try:
            lines = file.read_text().splitlines()
        except OSError as error:
            problem = f"cannot be read ({error.strerror}); --data-trace-file names it, with the "
            raise InputError(problem + "number of the table for j", file=file) from None
        if len(lines) < 3:
            raise InputError(f"{len(lines)} lines, expected 3", file=file)
        ids = tuple(map(int, _numbers(file, lines, 1)))
        distances = tuple(map(int, _numbers(file, lines, 2)))
        cumulative = tuple(_numbers(file, lines, 3))
        if list(distances) != sorted(set(distances)) or not 0 <= distances[-1] <= len(ids):
            expected = f"expected ascending stack distances from 0 to {len(ids)}"
            raise InputError(expected, file=file, line=2)
        if len(cumulative) != len(distances):
            problem = f"{len(cumulative)} probabilities for {len(distances)} stack distances"
            raise InputError(problem, file=file, line=3)
        return cls(ids, distances, cumulative)

    def draw(self, rng: RandomState, size: int, *, padding: bool) -> list[int]:
        """Draw a bag of ids, starting from a trace that nothing was accessed in yet.

        Args:
            rng: Random numbers, one for each id.
            size: Ids to draw.
            padding: Whether to stop drawing new ids once every distance is possible.

        """
        trace = list(self.ids)
        bag = []
        seen = 0
        for _ in range(size):
            u = rng.random_sample()
            if seen < self.distances[-1]:
                # No distance can be larger than the number of ids seen so far.
                u *= self.cumulative[bisect(self.distances, seen) - 1]
            elif padding:
                u = (1.0 - self.cumulative[0]) * u + self.cumulative[0]
            place = next((j for j, c in enumerate(self.cumulative) if u <= c), -1)
            distance = self.distances[place]
            seen += distance == 0
            bag.append(trace.pop(0 if distance == 0 else len(trace) - distance))
            trace.append(bag[-1])
        return bag


def _numbers(file: Path, lines: list[str], line: int) -> list[float]:
    try:
        return [float(word) for word in lines[line - 1].split(",")]
    except ValueError as error:
        problem = f"{error}; expected numbers separated by commas"
        raise InputError(problem, file=file, line=line) from None


def distribution_file(pattern: str, table: int) -> Path:
    """Return the file of a table: its number stands for the last j of the file's name.

    Only of the name: the original replaces every j of the whole path.
    """
    path = Path(pattern)
    before, j, after = path.name.rpartition("j")
    return path.with_name(f"{before}{table}{after}") if j else path


def synthetic(rng: RandomState, pattern: str, tables: int, *, padding: bool) -> DrawIds:
    """Return a draw of ids that follows one distribution file a table.

    Args:
        rng: Random numbers.
        pattern: Path of the files, with j for the number of the table.
        tables: T.
        padding: Whether to stop drawing new ids once every distance is possible.

    Raises:
        InputError: A file is missing or is not what it should be.

    """
    distributions = [Distribution.read(distribution_file(pattern, t)) for t in range(tables)]

    def draw(table: int, rows: int, size: int) -> Bag:
        ids = np.unique(distributions[table].draw(rng, size, padding=padding)).astype(np.int64)
        if ids[0] < 0 or ids[-1] >= rows:
            print(WARNING)
            ids = np.mod(ids, rows)
        return ids

    return draw
