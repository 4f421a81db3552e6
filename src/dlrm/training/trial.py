"""One run of a config, from a fresh directory to its evaluations."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlrm.data.encoder import Encoder
from dlrm.data.store import Dataset
from dlrm.files import write_json
from dlrm.run import Run
from dlrm.training.config import TrainConfig, to_dict
from dlrm.training.environment import environment
from dlrm.training.evaluate import describe, optimum, predict_split
from dlrm.training.loop import fit

HELD_OUT = ("validation", "test")
"""Splits that a finished run is evaluated on, where they have rows."""


def create(path: Path, recipe: str, config: TrainConfig, dataset: Dataset) -> Run:
    """Start a run directory with everything that later commands need to know.

    Raises:
        RunError: The folder exists and is not empty.

    """
    if config.threads:
        torch.set_num_threads(config.threads)
    run = Run.create(
        path,
        recipe=recipe,
        config=to_dict(config),
        schema=dataset.schema,
        environment=environment(),
        dataset={**dataset.summary(), "path": str(dataset.path.resolve())},
    )
    Encoder.load(dataset.path).save(path)
    return run


def complete(
    path: Path, recipe: str, config: TrainConfig, dataset: Dataset, *, title: str
) -> tuple[Run, dict[str, dict[str, Any]]]:
    """Bring a run to its evaluations, from wherever it stands: not begun, killed or finished.

    Returns:
        The run, and what `evaluate` returned for it.

    """
    again = (path / "config.json").is_file()
    run = Run.open(path) if again else create(path, recipe, config, dataset)
    known = {name: run.evaluation(name) for name in HELD_OUT if len(dataset.split(name))}
    done = {name: evaluation for name, evaluation in known.items() if evaluation is not None}
    if done and len(done) == len(known):
        return run, done
    model = fit(config, dataset, run, resume=again, title=title)
    return run, evaluate(config, dataset, run, model)


def evaluate(
    config: TrainConfig,
    dataset: Dataset,
    run: Run,
    model: nn.Module,
    baseline: tuple[str, dict[str, dict[str, Any]]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write evaluation-SPLIT.json of the final model for each held-out split that has rows.

    Args:
        config: Of the run.
        dataset: Whose splits are evaluated.
        run: Where the files go.
        model: The best model of the run.
        baseline: Name of the model to compare with, and its own evaluations.

    Returns:
        By split: `metrics`, and where known those of the `optimum` and the `baseline`.

    """
    evaluations = {}
    for name in HELD_OUT:
        split = dataset.split(name)
        if not len(split):
            continue
        best = optimum(split)
        evaluations[name] = {
            "split": name,
            **describe(predict_split(model, split, config.eval.batch_size)),
            "optimum": best.to_dict() if best else None,
            "baseline": {"name": baseline[0], "metrics": baseline[1][name]["metrics"]}
            if baseline
            else None,
        }
        write_json(run.path / f"evaluation-{name}.json", evaluations[name])
    return evaluations
