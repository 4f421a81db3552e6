"""What compilers make of the kernels: they may drop prefetches and vectors, and no result tells."""

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from dlrm import compiler
from dlrm.ops import build

LINE_BYTES = 64
DIMS = (8, 10, 16, 32, 64, 128)
TABLE_BYTES = {"Float": (4,), "Bf16": (2,), "Nearest": (2,), "Split": (2, 2)}
"""Storage -> bytes of a number in each of its arrays."""
STATE_BYTES = {"sgd": 0, "adagrad": 4, "adam": 8}
"""Optimizer -> bytes that it keeps of a number."""


@pytest.fixture(scope="module", params=["avx512", "avx2"])
def functions(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """Name of each compiled function -> its instructions."""
    if "clang" in compiler.compiler()[1] or not shutil.which("objdump"):
        pytest.skip("reads what objdump writes of what GCC compiled")
    if request.param not in build.supported():
        pytest.skip(f"this machine has no {request.param}")
    written = subprocess.run(
        ["objdump", "-d", "-C", "--no-show-raw-insn", build.compiled(request.param)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return dict(_functions(written))


def _functions(written: str) -> Iterator[tuple[str, list[str]]]:
    for block in written.split("\n\n"):
        head, *lines = block.strip().splitlines()
        if match := re.match(r"[0-9a-f]+ <(.*)>:", head):
            yield match[1].replace("(anonymous namespace)::", ""), lines


def prefetches(lines: list[str]) -> int:
    return sum("prefetch" in line for line in lines)


def lines_of(size_bytes: int) -> int:
    """Return the lines of 64 bytes that a row of a table may touch."""
    within = LINE_BYTES % size_bytes == 0 if size_bytes else True
    return -(-size_bytes // LINE_BYTES) + (size_bytes % LINE_BYTES > 0 and not within)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("number", ["float", "unsigned short"])
@pytest.mark.parametrize("kernel", ["gather", "pool"])
def test_lookups_fetch_every_line_of_a_row(
    functions: dict[str, list[str]], kernel: str, number: str, dim: int
) -> None:
    # The loop over rows is a function of its own, or part of what shares rows out.
    counts = [
        prefetches(lines)
        for name, lines in functions.items()
        if re.search(rf"\b{kernel}<{dim}, {number}>\(", name)
    ]
    assert max(counts) >= lines_of(dim * (4 if number == "float" else 2))


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("storage", TABLE_BYTES)
@pytest.mark.parametrize("optimizer", STATE_BYTES)
def test_updates_fetch_every_line_of_a_row_its_gradient_and_its_state(
    functions: dict[str, list[str]], optimizer: str, storage: str, dim: int
) -> None:
    bodies = [
        lines
        for name, lines in functions.items()
        if re.search(rf"each_(row|gradient)<{dim}, .*\b{optimizer}<{dim}, {storage}>", name)
    ]
    expected = lines_of(4 * dim) + lines_of(STATE_BYTES[optimizer] * dim)
    expected += sum(lines_of(number * dim) for number in TABLE_BYTES[storage])
    assert max(map(prefetches, bodies)) >= expected


@pytest.mark.parametrize(
    ("pattern", "most"),
    [
        (r"\bgather<16, float>\(", 0),
        (r"\beach_gradient<16, true, .*\bsgd<16, Float>", 1),  # the learning rate
        (r"\beach_(row|gradient)<16, .*\bsgd<16, Float>", 3),  # also l2, and the factor of a row
    ],
)
def test_rows_move_in_vectors(functions: dict[str, list[str]], pattern: str, most: int) -> None:
    bodies = {name: lines for name, lines in functions.items() if re.search(pattern, name)}
    assert any(re.search(r"\b[yz]mm\d", line) for lines in bodies.values() for line in lines)
    for name, lines in bodies.items():
        single = {m[1] for line in lines if (m := re.search(r"\bv?movss\s+(.*)", line))}
        # Constants, and what registers leave on the stack, are no numbers of a row.
        assert sum("(%rip)" not in one and "(%rsp)" not in one for one in single) <= most, name


def test_products_in_tiles_are_those_instructions(functions: dict[str, list[str]]) -> None:
    bodies = [lines for name, lines in functions.items() if "tile_block<Hardware" in name]
    if not any("zmm" in line for lines in functions.values() for line in lines):
        assert not bodies  # only builds for AVX-512 have them
        return
    counts = [sum("tdpbf16ps" in line for line in lines) for lines in bodies]
    assert set(counts) == {2, 4}  # of up to 16 rows, and of more
    for lines, products in zip(bodies, counts, strict=True):
        assert sum("tileloadd" in line for line in lines) == products // 2 + 2
        assert sum("tilestored" in line for line in lines) == products
