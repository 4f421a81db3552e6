"""A small table of films that viewers saw: several labels, ratings, weights and histories."""

from pathlib import Path

import numpy as np
import polars as pl

SCHEMA = """
label = ["finished", "liked"]

[columns."viewer"]
kind = "category"

[columns."film"]
kind = "category"

[columns."minutes"]
kind = "number"

[columns."seen"]
kind = "sequence"
max_length = 4
table = "film"
"""
"""What the columns are, where histories share the table of films."""


def films(rows: int = 600, seed: int = 0) -> pl.DataFrame:
    """Return rows in which taste decides what is finished, liked and how many stars it gets."""
    rng = np.random.default_rng(seed)
    viewer, film = rng.integers(0, 30, rows), rng.integers(0, 20, rows)
    taste = np.random.default_rng(7).normal(size=(2, 30, 2))
    fit = (taste[0][viewer] * taste[1][film]).sum(axis=1)
    seen = [
        "|".join(f"f{g}" for g in rng.integers(0, 20, length))
        for length in rng.integers(0, 9, rows)
    ]
    return pl.DataFrame(
        {
            "viewer": [f"v{v}" for v in viewer],
            "film": [f"f{f}" for f in film],
            "minutes": rng.lognormal(3, 1, rows).round(1),
            "seen": seen,
            "finished": (fit + rng.normal(size=rows) / 2 > 0).astype(int),
            "liked": np.where(fit + rng.normal(size=rows) / 2 > 0.7, "yes", "no"),
            "stars": (3.5 + fit + rng.normal(size=rows) / 4).round(2),
            "counts": np.where(viewer % 3 == 0, 3.0, 1.0),
        }
    )


def ratings(file: Path, rows: int = 600) -> Path:
    """Write `user`, `item`, `rating` and a time, with tabs between them."""
    frame = films(rows).select(
        user=pl.col("viewer").str.slice(1).cast(pl.Int64),
        item=pl.col("film").str.slice(1).cast(pl.Int64),
        rating=pl.col("stars").round(0),
        timestamp=pl.int_range(pl.len()) * 977 % 10_007 + 880_000_000,
    )
    frame.write_csv(file, separator="\t")
    return file
