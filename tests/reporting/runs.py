"""Run directories of every kind, made up: what a training would have written."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

COMMAND = ["dlrm", "train", "demo", "--run", "runs/demo", "--optim.lr", "0.2"]

ENVIRONMENT = {
    "command": COMMAND,
    "started": "2026-03-01T09:30:00+00:00",
    "dlrm": "0.1.0",
    "python": "3.13.5",
    "torch": "2.13.0",
    "numpy": "2.3.1",
    "platform": "Linux-6.12-x86_64",
    "cpu": "AMD EPYC 9B45",
    "cores": 2,
    "threads": 2,
    "memory_bytes": 8_200_000_000,
}

CONFIG = {
    "data": {"rows": 1_000_000, "seed": 1},
    "model": {"name": "dlrm", "dim": 16, "bottom": [64, 32], "top": [64, 32], "interaction": "dot"},
    "optim": {"name": "adagrad", "lr": 0.2, "warmup_steps": 0},
    "loader": {"batch": 2048, "shuffle": True},
    "loss": "bce",
    "early_stop": None,
}


def metrics(auc: float | None, log_loss: float, samples: int = 100_000) -> dict[str, Any]:
    return {
        "auc": auc,
        "log_loss": log_loss,
        "normalized_entropy": log_loss / 0.5691,
        "accuracy": 0.744 + (0.77 - log_loss) / 8,
        "calibration": 1.0123,
        "ece": 0.0187,
        "click_rate": 0.2562,
        "samples": samples,
    }


def features(categorical: int = 26, dense: int = 13) -> list[dict[str, Any]]:
    draw = np.random.default_rng(3)
    sizes = (10 ** draw.uniform(0.5, 6.9, categorical)).astype(int)
    return [
        {
            "name": f"I{place}",
            "kind": "dense",
            "num_embeddings": None,
            "missing_rate": float(draw.beta(0.4, 1.5)),
        }
        for place in range(1, dense + 1)
    ] + [
        {
            "name": f"C{place}",
            "kind": "one_hot",
            "num_embeddings": int(size),
            "missing_rate": float(draw.choice([0.0, 0.0, 0.03, 0.44, 0.76])),
        }
        for place, size in enumerate(sizes, start=1)
    ]


def events(steps: int = 400, every: int = 2, evaluate: int = 40) -> list[dict[str, Any]]:
    """Return the log of a training that gets better, with noise."""
    draw = np.random.default_rng(1)
    log: list[dict[str, Any]] = []
    best = 0.0
    for step in range(every, steps + 1, every):
        done = step / steps
        loss = 0.462 + 0.23 * np.exp(-14 * done) + 0.012 * draw.normal() - 0.012 * done
        log.append(
            {
                "event": "train",
                "step": step,
                "epoch": 0,
                "samples": step * 2048,
                "loss": float(loss),
                "lr": 0.2,
                "samples_per_s": float(41_000 + 1500 * draw.normal() - 6000 * (step % 90 == 0)),
                "loading_share": float(0.01 + 0.004 * draw.random()),
                "elapsed_s": step * 0.05,
            }
        )
        if step % evaluate == 0:
            auc = 0.8045 - 0.09 * np.exp(-5 * done)
            for split, less in (("train", 0.008), ("validation", 0.0)):
                log.append(
                    {
                        "event": "eval",
                        "split": split,
                        "step": step,
                        "epoch": 0,
                        **metrics(float(auc - less), float(0.69 - 0.28 * (auc - less)), 20_000),
                    }
                )
            if auc > best:
                best = auc
                log.append({"event": "best", "step": step, "metric": "auc", "value": float(auc)})
    return log


def evaluation(auc: float | None = 0.8051, *, known: bool = True) -> dict[str, Any]:
    """Return a final evaluation, with bins and a histogram that fit each other."""
    middle = np.linspace(0.01, 0.99, 50)
    negatives = (7_000_000 * middle**0.7 * (1 - middle) ** 5 / 25).astype(int)
    positives = (2_000_000 * middle**1.6 * (1 - middle) ** 2 / 25).astype(int)
    bins = []
    ends = np.interp(
        np.linspace(0, 1, 21),
        np.cumsum(negatives + positives) / (negatives + positives).sum(),
        middle,
    )
    for low, high in itertools.pairwise(ends):
        mean = float(low + high) / 2
        bins.append(
            {
                "low": float(low),
                "high": float(high),
                "samples": 5000,
                "mean_score": mean,
                "click_rate": mean * 0.99 + 0.01 * float(np.sin(19 * low)),
            }
        )
    return {
        "split": "test",
        "step": 400,
        "metrics": metrics(auc, 0.4604),
        "calibration_bins": bins,
        "histogram": {
            "edges": np.linspace(0, 1, 51).tolist(),
            "negatives": negatives.tolist(),
            "positives": positives.tolist(),
        },
        "optimum": metrics(0.8100, 0.4550) if known else None,
        "baseline": {"name": "lr", "metrics": metrics(0.7700, 0.4870)} if known else None,
    }


def of_numbers(rmse: float = 0.94, *, known: bool = True) -> dict[str, Any]:
    """Return a final evaluation of a regression."""

    def numbers(rmse: float) -> dict[str, Any]:
        facts = {
            "mae": 0.79 * rmse,
            "r2": 1 - rmse**2 / 1.2656,
            "bias": 0.0123,
            "calibration": 1.0035,
        }
        return {"rmse": rmse, **facts, "mean_label": 3.5287, "samples": 20_000}

    middle = np.linspace(1.5, 4.7, 20)
    return {
        "split": "test",
        "step": 400,
        "metrics": numbers(rmse) | {"rmse_low": rmse - 0.01, "rmse_high": rmse + 0.01},
        "prediction_bins": [
            {
                "low": float(at - 0.1),
                "high": float(at + 0.1),
                "samples": 1000,
                "mean_prediction": float(at),
                "mean_label": float(0.98 * at + 0.1),
                "label_low": float(at - 1.2),
                "label_high": float(min(5.0, at + 1.1)),
            }
            for at in middle
        ],
        "residuals": {
            "edges": np.linspace(-3, 3, 31).tolist(),
            "counts": (2000 * np.exp(-(np.linspace(-2.9, 2.9, 30) ** 2))).astype(int).tolist(),
            "outside": 7,
        },
        "optimum": None,
        "baseline": {"name": "lr", "metrics": numbers(0.98)} if known else None,
    }


def with_labels(final: dict[str, Any], others: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a final evaluation of several labels, of which the first stands at the top too."""
    first, *_ = others
    return {**others[first], **final, "labels": others}


def write_run(
    folder: Path,
    *,
    log: list[dict[str, Any]] | None = None,
    final: dict[str, Any] | None = None,
    recipe: str = "demo",
    tail: str = "",
    config: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    columns: list[dict[str, Any]] | None = None,
    taken: list[dict[str, str]] | None = None,
    bad_rows: int = 0,
    labels: tuple[str, ...] = ("label",),
    task: str = "classification",
) -> Path:
    """Write a run directory; whatever is not given is that of a good run."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = features() if columns is None else columns
    dataset = {
        "path": "prepared/clicks-1a2b3c4d",
        "source": "clicks",
        "splits": {
            name: {"rows": rows, **_facts(rows, labels, task)}
            for name, rows in (("train", 819_200), ("validation", 80_000), ("test", 100_000))
        },
        "features": columns,
        "columns": taken or [],
        "bad_rows": bad_rows,
    }
    tables = [one for one in columns if one["kind"] != "dense"]
    schema = {
        "dense": [{"name": one["name"]} for one in columns if one["kind"] == "dense"],
        "tables": [{key: one[key] for key in ("name", "num_embeddings")} for one in tables],
        "features": [{"name": one["name"], "table": one["name"]} for one in tables],
        "labels": labels,
        "task": task,
    }
    contents = {
        "config.json": {"recipe": recipe, "config": CONFIG if config is None else config},
        "schema.json": schema,
        "environment.json": ENVIRONMENT if environment is None else environment,
        "dataset.json": dataset,
    }
    if final:
        contents[f"evaluation-{final['split']}.json"] = final
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    lines = "".join(json.dumps(event) + "\n" for event in (events() if log is None else log))
    (folder / "metrics.jsonl").write_text(lines + tail)
    return folder


def _facts(rows: int, labels: tuple[str, ...], task: str) -> dict[str, Any]:
    if task == "classification":
        return {"positives": {name: round(rows * 0.2562) for name in labels}}
    numbers = (("mean", 3.5287), ("min", 1.0), ("max", 5.0))
    return {key: dict.fromkeys(labels, value) for key, value in numbers}
