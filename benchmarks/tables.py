"""How good `dlrm train FILE --label COLUMN` is beside boosted trees with their defaults.

    python benchmarks/tables.py [FILE:LABEL ...] [--data FOLDER] [--seeds 3] [--only census,amazon]

One protocol for all: 80% of the rows train, 10% validate, 10% test, divided by the seed at random,
MovieLens by time. The model is the recipe `own`, without the models beside it; LightGBM and
CatBoost have their defaults, the same training rows and pandas' categories where `own` takes a
column for one. Trees do not see the validation rows. Where CatBoost is not installed, that is said.

A census is generated: numbers with frequent values, long tails and gaps, and what they do together.
Further tables are given as FILE:LABEL, and FOLDER (or DLRM_DATA) may hold `ml100k`, `amazon` and
`frappe`, as docs/guides/accuracy.md says.
"""

import argparse
import gzip
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import polars.selectors as cs

from dlrm import terminal
from dlrm.bench.results import append
from dlrm.commands.train import main as train
from dlrm.data.features.infer import infer
from dlrm.data.sources.frame import FrameSource
from dlrm.metrics import measure

ROWS = 40_000
MODEL, RIVALS = "dlrm", ("LightGBM", "CatBoost")
BY_TIME = ("movielens",)


def census(rows: int) -> pl.DataFrame:
    """Return people whose income depends on numbers that are mostly 0, skewed or missing."""
    rng = np.random.default_rng(0)
    age = np.clip(rng.gamma(6, 6.5, rows), 17, 90).astype(int)
    years = rng.choice(
        [7, 9, 10, 12, 13, 14, 16], rows, p=[0.1, 0.32, 0.23, 0.08, 0.17, 0.06, 0.04]
    )
    hours = np.where(rng.random(rows) < 0.47, 40, np.clip(rng.normal(41, 14, rows), 1, 99).round())
    gain = np.where(rng.random(rows) < 0.08, rng.lognormal(8.2, 1.1, rows).round(), 0)
    loss = np.where(rng.random(rows) < 0.05, rng.normal(1900, 350, rows).round(), 0)
    weight = rng.lognormal(12, 0.6, rows).round()
    jobs = rng.choice(14, rows, p=rng.dirichlet(np.full(14, 2.0)))
    status = np.where(rng.random(rows) < 1 / (1 + np.exp(-(age - 30) / 6)), "married", "single")
    worth = rng.normal(0, 0.8, 14)[jobs]
    logit = (
        -4.2
        + 2.4 * np.exp(-(((age - 47) / 15) ** 2))
        + 0.32 * (years - 9) * (0.6 + 0.4 * (status == "married"))
        + np.where(hours == 40, 0.2, np.tanh((hours - 40) / 12))
        + np.where((gain > 5000) | ((gain > 3000) & (age > 60)), 4.0, -0.6 * (gain > 0))
        + np.where((loss > 1800) & (loss < 2000), 2.0, -0.8 * (loss > 0))
        + 1.3 * (status == "married")
        + worth * (1 + 0.3 * (years > 12))
    )
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    numbers = {"age": age, "years": years, "gain": gain, "loss": loss, "weight": weight}
    frame = pl.DataFrame({**numbers, "status": status, "job": [f"job {j}" for j in jobs]})
    known = rng.random(rows) < 0.93
    hours_or_null = pl.Series(hours).set(pl.Series(~known), None)
    return frame.with_columns(hours=hours_or_null, label=pl.Series(label))


def movielens(folder: Path) -> pl.DataFrame:
    """Return ratings of four stars and more as clicks, the oldest first."""

    def read(name: str, separator: str, columns: Sequence[str]) -> pl.DataFrame:
        text = gzip.decompress((folder / name).read_bytes()).decode("latin-1").encode()
        frame = pl.read_csv(text, separator=separator, has_header=False, quote_char=None)
        return frame.rename(dict(zip(frame.columns, columns, strict=False)))

    ratings = read("u.data.gz", "\t", ["user", "item", "stars", "time"])
    users = read("u.user.gz", "|", ["user", "age", "sex", "occupation", "zip"])
    items = read("u.item.gz", "|", ["item", "title", "released"])
    genres = pl.concat_str(items.columns[5:]).alias("genres")
    items = items.select("item", "released", genres + "g")
    joined = ratings.sort("time", maintain_order=True).join(users, on="user", how="left")
    joined = joined.join(items, on="item", how="left").with_columns(
        pl.col("user", "item", "zip").cast(pl.String) + "#",
        label=(pl.col("stars") >= 4).cast(pl.Int8),
    )
    return joined.drop("stars", "time")


def frappe(folder: Path) -> pl.DataFrame:
    """Return ten ids a row and the label."""
    lines = gzip.decompress((folder / "train.libsvm.gz").read_bytes()).decode().splitlines()
    rows = [line.split() for line in lines]
    ids = [[token.partition(":")[0] for token in row[1:]] for row in rows]
    columns = enumerate(zip(*ids, strict=True))
    texts = {f"c{k}": [f"i{i}" for i in column] for k, column in columns}
    return pl.DataFrame({**texts, "label": [int(float(row[0]) > 0) for row in rows]})


def tables(given: Sequence[str], data: Path | None, rows: int) -> Iterator[tuple[str, Any, str]]:
    """Yield the name of each table, what returns it, and its label."""
    yield "census", lambda: census(rows), "label"
    for words in given:
        file, _, label = words.rpartition(":")
        yield Path(file).name.partition(".")[0], lambda file=file: pl.read_csv(file), label
    known = {
        "movielens": ("ml100k", movielens, "label"),
        "amazon": ("amazon", lambda folder: pl.read_csv(folder / "train.csv.gz"), "ACTION"),
        "frappe": ("frappe", frappe, "label"),
    }
    for name, (folder, read, label) in known.items():
        if data is not None and (data / folder).is_dir():
            yield name, lambda read=read, folder=folder: read(data / folder), label
        else:
            print(f"Without {name}: --data has no folder {folder}")


def divided(frame: pl.DataFrame, seed: int, *, by_time: bool) -> dict[str, pl.DataFrame]:
    """Return training, validation and test rows, the oldest first or at random."""
    rows = frame.height
    order = np.arange(rows) if by_time else np.random.default_rng(seed).permutation(rows)
    bounds = {"train": (0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1)}
    return {
        name: frame[order[int(low * rows) : int(high * rows)]]
        for name, (low, high) in bounds.items()
    }


def model(parts: dict[str, pl.DataFrame], label: str, seed: int) -> dict[str, Any]:
    """Return what the one-liner comes to, in the current folder."""
    Path("rows").mkdir()
    for name, part in parts.items():
        part.write_csv(Path("rows") / f"{name}.csv")
    words = ["rows", "--label", label, "--run", "run", "--seed", str(seed)]
    words += ["--loader.seed", str(seed), "--no-baseline", "--no-importance"]
    start = time.process_time()
    result = train(words, "dlrm train")
    assert result is not None
    cpu_s = time.process_time() - start
    metrics = result.evaluations["test"]["metrics"]
    return {"auc": metrics["auc"], "log_loss": metrics["log_loss"], "cpu_s": cpu_s}


def rival(name: str, parts: dict[str, pl.DataFrame], label: str, seed: int) -> dict[str, Any]:
    """Return what boosted trees come to."""
    with tempfile.TemporaryDirectory() as folder:
        table = FrameSource(parts["train"]).table(Path(folder), lambda _: None)
        columns = infer(table, [label]).columns
    used = [column for column in columns if column.kind != "ignore"]
    # Trees know no times that are texts.
    numeric = parts["train"].select(cs.numeric()).columns
    numbers = [c.name for c in used if c.kind == "number" and c.name in numeric]
    categories = [c.name for c in used if c.name not in numbers]
    frames = {
        part: parts[part].select(*numbers, pl.col(categories).cast(pl.String).fill_null("missing"))
        for part in ("train", "test")
    }
    rows = {part: pd.DataFrame(frame.to_dict(as_series=False)) for part, frame in frames.items()}
    clicks = parts["train"][label].to_numpy()
    start = time.process_time()
    if name == "LightGBM":
        from lightgbm import LGBMClassifier

        for category in categories:
            values = frames["train"][category].unique(maintain_order=True).to_list()
            for frame in rows.values():
                frame[category] = pd.Categorical(frame[category], categories=values)
        booster = LGBMClassifier(n_jobs=1, verbose=-1, random_state=seed)
        booster.fit(rows["train"], clicks)
    else:
        from catboost import CatBoostClassifier  # pyright: ignore[reportMissingImports]

        booster = CatBoostClassifier(
            thread_count=1, random_seed=seed, verbose=False, allow_writing_files=False
        )
        booster.fit(rows["train"], clicks, cat_features=categories)
    cpu_s = time.process_time() - start
    scores = np.asarray(booster.predict_proba(rows["test"]))[:, 1].clip(1e-7, 1 - 1e-7)
    metrics = measure(np.log(scores / (1 - scores)), parts["test"][label].to_numpy())
    return {"auc": metrics.auc, "log_loss": metrics.log_loss, "cpu_s": cpu_s}


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    there = os.environ.get("DLRM_DATA")
    flags.add_argument("tables", nargs="*", metavar="FILE:LABEL", help="further tables, as CSV")
    flags.add_argument("--data", type=Path, default=there, help="folder of the public tables")
    flags.add_argument("--only", default="", help="tables whose name has one of these words")
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--rows", type=int, default=ROWS, help="of the census")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a short census: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.seeds, given.rows, given.only = 1, 1000, "census"
    rivals = [name for name in RIVALS if find_spec(name.lower())]
    for name in set(RIVALS) - set(rivals):
        print(f"Without {name}, which is not installed")
    grid = terminal.table("Tables", "table", "model", "AUC", "log loss", "CPU s")
    for table, read, label in tables(given.tables, given.data, given.rows):
        if given.only and not any(word in table for word in given.only.split(",")):
            continue
        frame = read()
        for name in (MODEL, *rivals):
            seen = [
                _measured(name, divided(frame, seed, by_time=table in BY_TIME), label, seed)
                for seed in range(given.seeds)
            ]
            row = {key: fmean(one[key] for one in seen) for key in seen[0]}
            append(
                "tables", {"table": table, "model": name, "seeds": given.seeds, **row}, given.out
            )
            figures = (f"{row['auc']:.4f}", f"{row['log_loss']:.4f}", f"{row['cpu_s']:.1f}")
            grid.add_row(table, name, *figures)
            print(table, name, *figures, flush=True)
    terminal.out.print(grid)
    return 0


def _measured(name: str, parts: dict[str, pl.DataFrame], label: str, seed: int) -> dict[str, Any]:
    # In a folder of its own, because prepared datasets go below the current one.
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stderr(io.StringIO()):
        fit = model if name == MODEL else partial(rival, name)
        return fit(parts, label, seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
