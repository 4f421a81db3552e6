"""Runs of the drop-in command line inside the test process, and what they printed."""

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from dlrm.compat.dlrm_s_pytorch import main as dlrm_s_pytorch

GOLDEN = Path(__file__).parent.parent / "golden"

COMMAND = re.compile(r"\$ python dlrm_s_pytorch\.py(?:\(.*\))?(.*)")
NUMBER = re.compile(r"-?\d+\.\d*(?:e[+-]\d+)?")


class Result(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def losses(self) -> list[str]:
        return [line for line in self.lines if line.startswith("Finished training")]


def run(*arguments: str, main: Callable[[Sequence[str]], int] = dlrm_s_pytorch) -> Result:
    """Run a command line in the current folder."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
    return Result(status, out.getvalue(), err.getvalue())


def ok(*arguments: str, main: Callable[[Sequence[str]], int] = dlrm_s_pytorch) -> Result:
    """Run a command line that must succeed."""
    result = run(*arguments, main=main)
    assert result.status == 0, result.err
    return result


def read(name: str) -> tuple[list[str], list[str]]:
    """Return the arguments of a golden file and the lines it expects."""
    first, *lines = (GOLDEN / f"{name}.txt").read_text().splitlines()
    command = COMMAND.fullmatch(first)
    assert command, first
    return shlex.split(command[1]), [line for line in lines if not line.startswith("[exit ")]


def assert_same_lines(got: list[str], want: list[str], rounding: float = 2e-7) -> None:
    """Every line must be the same, but for the last digits of computed numbers.

    Data, counts and percentages (numbers of up to four decimals) must be the same text. Losses and
    parameters (five decimals and more) may differ by one unit of the last printed digit, or by
    `rounding`, relative above 1, where more digits than float32 has are printed: other CPUs add up
    in another order.
    """
    assert len(got) == len(want), "\n".join(got)
    for line, expected in zip(got, want, strict=True):
        if line == expected:
            continue
        for texts in zip(NUMBER.findall(line), NUMBER.findall(expected), strict=True):
            decimals = max(_decimals(text) for text in texts)
            ours, theirs = map(float, texts)
            near = max(1.01 * 10.0**-decimals, rounding * max(1.0, abs(theirs)))
            tolerance = near if decimals > 4 else 0.0
            assert abs(ours - theirs) <= tolerance, f"{line!r}, expected {expected!r}"
        assert _shape(line) == _shape(expected)


def _decimals(number: str) -> int:
    digits, _, exponent = number.partition("e")
    return len(digits.partition(".")[2]) - int(exponent or 0)


def _shape(line: str) -> str:
    """Return a line without its numbers and without the spaces that pad them."""
    return "".join(NUMBER.sub("#", line).split())
