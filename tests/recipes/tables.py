"""Tiny tables of the kinds that recipes and documents name."""

import gzip
from pathlib import Path

import numpy as np

CODES = (
    "RESOURCE,MGR_ID,ROLE_ROLLUP_1,ROLE_ROLLUP_2,ROLE_DEPTNAME,ROLE_TITLE,ROLE_FAMILY_DESC,"
    "ROLE_FAMILY,ROLE_CODE"
)


def frappe(folder: Path, rows: int = 400) -> Path:
    """Write train.libsvm.gz and valid.libsvm.gz: ten one-hot fields."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    sizes = np.array([20, 30, 7, 7, 2, 3, 2, 9, 5, 8])
    for name, count in (("train", rows), ("valid", rows // 4)):
        ids = rng.integers(0, sizes, (count, len(sizes))) + np.cumsum(sizes) - sizes + 1
        labels = (rng.random(count) < 0.33).astype(int)
        lines = (
            " ".join([str(label), *(f"{each}:1" for each in row)])
            for label, row in zip(labels, ids, strict=True)
        )
        (folder / f"{name}.libsvm.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def visits(file: Path, tomorrow: Path, rows: int = 400) -> None:
    """Write a table with a label `bought`, and the same columns without it."""
    rng = np.random.default_rng(0)
    lines = [
        f"{rng.integers(9)},{rng.choice(['phone', 'laptop'])},{rng.lognormal():.2f},"
        f"{int(rng.random() < 0.3)}"
        for _ in range(rows)
    ]
    file.write_text("\n".join(["city_id,device,price,bought", *lines]))
    without = [line.rpartition(",")[0] for line in lines]
    tomorrow.write_text("\n".join(["city_id,device,price", *without]))


def amazon(file: Path, rows: int = 400) -> Path:
    """Write a label and nine columns of codes, the last of which renames ROLE_TITLE."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 40, (rows, 9)) * 1_371 + 4_000
    codes[:, 8] = codes[:, 5] + 17
    labels = (rng.random(rows) < 0.9).astype(int)
    lines = [f"ACTION,{CODES}"]
    lines += [",".join(map(str, [label, *row])) for label, row in zip(labels, codes, strict=True)]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file
