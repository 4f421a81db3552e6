"""Small Criteo logs, made for the tests."""

from pathlib import Path

import numpy as np


def write_log(file: Path, rows: int, seed: int = 0) -> Path:
    """Write a log in which I1 and C1 say something about the click."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        label = int(rng.random() < 0.3)
        integers = [str(n) if n > 2 else "" for n in rng.integers(-2, 50, 13)]
        integers[0] = str(20 * label + int(rng.integers(0, 10)))
        categories = [f"{0xFFFFFFF0 + n:08x}" if n else "" for n in rng.integers(0, 9, 26)]
        categories[0] = f"{0x80000000 + 2 * int(rng.integers(0, 3)) + label:08x}"
        lines.append("\t".join([str(label), *integers, *categories]))
    file.write_text("\n".join(lines) + "\n")
    return file
