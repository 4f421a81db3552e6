"""Trains, stops, resumes, evaluates and predicts on a device, and prints all numbers as JSON.

python -m tests.device.trainings DEVICE MODEL OPTIMIZER STORAGE FOLDER
"""

import json
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from tests.device import pretend

import dlrm
from dlrm.data.resolve import resolve
from dlrm.data.store import Dataset
from dlrm.models import MODELS, find
from dlrm.recipes.own import own
from dlrm.training.predictor import Predictor
from dlrm.training.trainer import Trainer

OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "adam")
STORAGES = ("fp32", "split", "bf16", "bf16_nearest")
"""Taken in turn."""

SCHEMA = """
label = ["bought", "returned"]
weight = "weight"

[columns.price]
kind = "number"

[columns.user]
kind = "category"

[columns.item]
kind = "category"
table = "item"

[columns.history]
kind = "sequence"
table = "item"
max_length = 3

[columns.tags]
kind = "list"
"""


def table(rows: int = 600) -> pl.DataFrame:
    """Rows with a number, ids, a history that shares the item's table, two labels and a weight."""
    rng = np.random.default_rng(0)
    items = rng.integers(0, 30, rows)
    return pl.DataFrame(
        {
            "price": rng.random(rows).round(3),
            "user": [f"u{n}" for n in rng.integers(0, 40, rows)],
            "item": [f"i{n}" for n in items],
            "history": [[f"i{n}" for n in rng.integers(0, 30, rng.integers(0, 5))] for _ in items],
            "tags": [[f"t{n}" for n in rng.integers(0, 9, rng.integers(0, 4))] for _ in items],
            "bought": (rng.random(rows) < 0.2 + items / 60).astype(int),
            "returned": (rng.random(rows) < 0.3).astype(int),
            "weight": rng.random(rows).round(2) + 0.5,
        }
    )


def dataset(folder: Path) -> Path:
    """Return the prepared dataset of the table."""
    frame, file, schema = table(), folder / "train.parquet", folder / "schema.toml"
    frame.write_parquet(file)
    schema.write_text(SCHEMA)
    prepare = replace(own().prepare, schema=str(schema))
    return resolve(file, prepare, cache=folder).path


def config(device: str, model: str, optimizer: str, storage: str, data: Path) -> dlrm.TrainConfig:
    """Return a short run of a small model."""
    made = find(model)()
    options = {
        name: value
        for name, value in {
            "dim": 4,
            "bottom": (8,),
            "top": (8,),
            "deep": (8,),
            "cin": (4, 4),
            "first": (8,),
            "second": (8, 8),
            "gate": 4 if model == "finalmlp" else None,
            "contexts": ("user", ""),
            "crosses": ("user*item", "item*tags"),
            "tables": replace(made.tables, storage=storage),
            "dropout": 0.2,
        }.items()
        if hasattr(made, name) and value is not None
    }
    return replace(
        own(),
        data=str(data),
        device=device,
        model=replace(made, **options),
        optim=replace(own().optim, name=optimizer, lr=0.01, embedding_rows="touched"),
        average=replace(own().average, share=0.5, decay=0.0),
        loader=replace(own().loader, batch_size=64),
        checkpoint=replace(own().checkpoint, every=4, keep=100),
        eval=replace(own().eval, metric="log_loss", patience=0),
        log_every=1,
        epochs=2,
        baseline=False,
    )


def come_to(device: str, wanted: dlrm.TrainConfig, data: Dataset, path: Path) -> dict[str, Any]:
    """Return what a run on a device comes to."""
    trainer = Trainer.create(path, "own", wanted, data)
    trained, run = trainer.fit(), trainer.run
    evaluations = trainer.evaluate(trained)
    losses = [row["loss"] for row in run.metrics() if row["event"] == "train"]
    # As if the run had been killed half-way.
    for checkpoint in sorted((path / "checkpoints").glob("step-*"))[2:]:
        shutil.rmtree(checkpoint)
    Trainer(wanted, data, run, again=True).fit()
    resumed = [row["loss"] for row in run.metrics() if row["event"] == "train"]
    frame = table(50).drop("bought", "returned", "weight")
    scores = Predictor.open(path, device=torch.device(device)).scores(frame)
    return {
        "devices": sorted({p.device.type for p in trained.model.parameters()}),
        "losses": losses,
        "resumed": resumed,
        "evaluations": evaluations,
        "scores": scores.tolist(),
    }


def main(folder: Path) -> None:
    """Print a line for each model: what it comes to on both devices, or the error."""
    torch.set_num_threads(1)
    data = Dataset.open(dataset(folder))
    for number, model in enumerate(MODELS):
        line: dict[str, Any] = {"model": model}
        for device in ("cpu", pretend.NAME):
            what = model, OPTIMIZERS[number % 4], STORAGES[number // 2 % 4]
            try:
                wanted = config(device, *what, data.path)
                line[device] = come_to(device, wanted, data, folder / f"{model}-{device}")
            except Exception:
                line[device] = traceback.format_exc()
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    library = pretend.install()
    main(Path(sys.argv[1]))
