"""Small runs to serve: of a table with categories, and of one with lists and two labels."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlrm.serving.signature import Signature
from dlrm.training.predictor import Predictor
from mutants import Example

ROWS: Mapping[str, Mapping[str, Any]] = {
    "visits": {"city_id": 3, "device": "phone", "price": 1.5},
    "two": {"price": 1.5, "tags": ["a", "x", None]},
}
"""A row of each kind of run."""
_LABELS = {"visits": ("bought",), "two": ("clicked", "bought")}
_SMALL = ("--no-baseline", "--model.top", "8", "--model.dim", "4")
_TRAIN = (
    "import json, sys; from dlrm.cli import main; [main(w) and 1 / 0 for w in json.load(sys.stdin)]"
)


def trained(folder: Path, count: int = 1) -> dict[str, list[Path]]:
    """Train runs of both kinds, `count` of each from other seeds; return their directories.

    The k-th of a kind, from 0, has made k + 2 steps, so that its checkpoint is known by them.
    """
    write_tables(folder)
    runs: dict[str, list[Path]] = {}
    words = []
    for name, labels in _LABELS.items():
        flags = [word for label in labels for word in ("--label", label)]
        for k in range(count):
            run = f"{name}-{k}"
            seeded = ("--seed", str(k), "--max-steps", str(k + 2), "--run", run)
            words.append(["train", f"{name}.csv", *flags, *_SMALL, *seeded])
            runs.setdefault(name, []).append(folder / run)
    # All in one process, whose start takes longer than they do.
    subprocess.run(
        [sys.executable, "-c", _TRAIN],
        input=json.dumps(words),
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return runs


def write_tables(folder: Path, rows: int = 300) -> None:
    """Write visits.csv and two.csv."""
    lines = [
        f"{k % 9},{('phone', 'laptop')[k % 2]},{k % 7}.5,{int(k % 3 == 0)}" for k in range(rows)
    ]
    (folder / "visits.csv").write_text("\n".join(["city_id,device,price,bought", *lines]))
    lines = [f"{k % 5}.5,\"['{'abc'[k % 3]}', 'x']\",{k % 2},{k % 3 // 2}" for k in range(rows)]
    (folder / "two.csv").write_text("\n".join(["price,tags,clicked,bought", *lines]))


def drawn_rows(kind: str, count: int) -> Sequence[Mapping[str, Any]]:
    """Return different rows of a kind, values among them that training never saw."""
    rng = np.random.default_rng(0)
    if kind == "visits":
        return [
            {
                "city_id": int(rng.integers(12)),
                "device": str(rng.choice(["phone", "laptop", "?"])),
                "price": round(float(rng.lognormal()), 2),
            }
            for _ in range(count)
        ]
    return [
        {
            "price": round(float(rng.lognormal()), 2),
            "tags": [str(tag) for tag in rng.choice(list("abcx?"), rng.integers(1, 4))],
        }
        for _ in range(count)
    ]


def example(name: str, predictor: Predictor, *rows: Mapping[str, Any]) -> Example:
    """Return rows as both kinds of requests send them; the first is that of `/score`."""
    batch = predictor.encode([dict(row) for row in rows])
    tensors = {"dense": batch.dense.numpy(), "ids": batch.ids.numpy().astype(np.int64)}
    if batch.lists is not None:
        tensors["values"] = batch.lists.values.numpy().astype(np.int64)
        tensors["offsets"] = batch.lists.offsets.numpy().astype(np.int64)
    inputs = Signature(predictor.schema).inputs
    return Example(name, rows[0], {key: tensors[key] for key in inputs})
