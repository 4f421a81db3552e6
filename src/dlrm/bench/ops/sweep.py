"""Operators over sweeps of settings: what is measured, and in which order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from dlrm.bench.ops import OPERATORS, room
from dlrm.bench.ops.operator import Stock
from dlrm.bench.ops.processes import measure_apart
from dlrm.bench.ops.setting import Setting
from dlrm.bench.ops.timed import Candidate, Outcome, Tick, measure
from dlrm.errors import ConfigError, unknown
from dlrm.ops.memory import keep_freed_memory


def candidates(
    names: Iterable[str], lists: Mapping[str, Sequence[Any]], threads: int
) -> list[Candidate]:
    """Return every operator on every setting of the lists, in which it differs.

    Args:
        names: Of operators.
        lists: Field of `Setting` -> its values.
        threads: Of operators to which they do not matter.

    Raises:
        ConfigError: There is no such operator, or a value has no meaning.

    """
    found = []
    for name in names:
        if name not in OPERATORS:
            raise unknown("operator", name, OPERATORS)
        operator = OPERATORS[name]
        fields = [field for field in lists if field in operator.fields]
        for values in product(*(lists[field] for field in fields)):
            setting = Setting(**{"threads": threads, **dict(zip(fields, values, strict=True))})
            if (candidate := Candidate(operator, setting)) not in found:
                found.append(candidate)
    return found


def sweep(
    every: Sequence[Candidate], rounds: int, tick: Tick, free: int | None = None
) -> Iterator[list[Outcome]]:
    """Measure candidates: those of an operator round by round beside each other.

    Args:
        every: Candidates.
        rounds: Timed rounds of each.
        tick: Told of progress: in all, candidates * (rounds + 1).
        free: Bytes of memory; None for what is free now.

    Returns:
        What became of some of them, each time it is known of some.

    Raises:
        ConfigError: A candidate does not fit into memory, or there are no rounds; before anything
            is allocated.

    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, expected at least 1")
    free = room.free_bytes() if free is None else free
    room.check(every, free)
    return _measured(every, rounds, tick, free)


def _measured(
    every: Sequence[Candidate], rounds: int, tick: Tick, free: int
) -> Iterator[list[Outcome]]:
    # As the training loop does.
    keep_freed_memory()
    for name in dict.fromkeys(each.operator.name for each in every):
        of_one = [each for each in every if each.operator.name == name]
        for part in room.parts(of_one, free):
            if OPERATORS[name].processes > 1:
                yield measure_apart(part, rounds, tick)
                continue
            with Stock() as stock:
                yield measure(part, stock, rounds, tick)
