"""One run of a config, from a fresh directory to its evaluations."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlrm.data.features.features import Features
from dlrm.data.store import Dataset
from dlrm.errors import DivergedError, Interrupted, RunError
from dlrm.files import remove_unfinished
from dlrm.json_file import write_sealed
from dlrm.metrics import Metrics
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.training import ensemble, loop
from dlrm.training.config import TrainConfig, to_dict
from dlrm.training.environment import environment
from dlrm.training.evaluate import by_label, describe, optimum, predict_split
from dlrm.training.load import load_model, training_stats
from dlrm.training.trainer import check_trainable

HELD_OUT = ("validation", "test")
"""Splits that a finished run is evaluated on, where they have rows."""


def create(
    path: Path, recipe: str, config: TrainConfig, dataset: Dataset, world: World = ALONE
) -> Run:
    """Start a run directory with everything that later commands need to know.

    Args:
        path: Of the directory.
        recipe: Name of the recipe.
        config: Of the run.
        dataset: That it learns.
        world: The processes of the run, of which the first writes.

    Raises:
        RunError: The folder exists and is not empty.
        DatasetError: The training rows have nothing to learn.

    """
    if config.threads:
        torch.set_num_threads(config.threads)
    check_trainable(dataset)
    if world.first:
        Run.create(
            path,
            recipe=recipe,
            config=to_dict(config),
            schema=dataset.schema,
            environment=environment() | ({"processes": world.size} if world.size > 1 else {}),
            dataset={**dataset.summary(), "path": str(dataset.path.resolve())},
            contents=partial(_save_features, dataset),
        )
    world.barrier()
    try:
        return Run.open(path, silent=not world.first)
    except RunError as error:
        raise RunError(
            f"{error}, which rank 0 has just made: all processes must share the folder of the run"
        ) from error


def _save_features(dataset: Dataset, path: Path) -> dict[str, Any]:
    """Put the features of a dataset into a run directory; return its records of their files."""
    Features.load(dataset.path).save(path)
    return dataset.manifest["files"]


def complete(
    path: Path,
    recipe: str,
    config: TrainConfig,
    dataset: Dataset,
    *,
    title: str,
    world: World = ALONE,
) -> tuple[Run, dict[str, dict[str, Any]]]:
    """Bring a run to its evaluations, from wherever it stands: not begun, killed or finished.

    Returns:
        The run, and what `evaluate` returned for it.

    """
    again = world.broadcast_object(Run.is_whole(path))
    if not again and world.first:
        # Killed while it was made, it is no run yet: nothing in it is worth keeping.
        shutil.rmtree(path, ignore_errors=True)
    run = (
        Run.open(path, silent=not world.first)
        if again
        else create(path, recipe, config, dataset, world)
    )
    known = {name: run.evaluation(name) for name in HELD_OUT if len(dataset.split(name))}
    done = {name: evaluation for name, evaluation in known.items() if evaluation is not None}
    if world.broadcast_object(bool(done) and len(done) == len(known)):
        return run, done
    model = fit(config, dataset, run, resume=again, title=title, world=world)
    return run, evaluate(config, dataset, run, model, world=world)


def fit(
    config: TrainConfig,
    dataset: Dataset,
    run: Run,
    *,
    resume: bool = False,
    title: str = "",
    world: World = ALONE,
) -> nn.Module:
    """Train the model of a run, or the members of its ensemble one after another.

    Args:
        config: Of the run.
        dataset: With the schema of the run.
        run: Where metrics and checkpoints, or the members, go.
        resume: Go on with what is there: finished members are not trained again.
        title: Of the progress bar.
        world: The processes of the run, all of which call this.

    Returns:
        The best model; of an ensemble the mean of the best of each member.

    Raises:
        DlrmError: See `dlrm.training.loop.fit`.

    """
    if resume and not run.silent:
        remove_unfinished(run.path)
        # A line that was half written would spoil the next one.
        run.rewind(sys.maxsize)
    if config.ensemble == 1:
        title = title or "training"
        return loop.fit(config, dataset, run, resume=resume, title=title, world=world)
    logged = {row["member"] for row in run.metrics() if row["event"] == "member"}
    for number, member in enumerate(ensemble.members(config)):
        which = f"member {number + 1} of {config.ensemble}"
        path = ensemble.folder(run, number)
        titled = f"{title}, {which}" if title else which
        try:
            trained, _ = complete(path, run.recipe, member, dataset, title=titled, world=world)
        except (Interrupted, KeyboardInterrupt) as stop:
            raise Interrupted(
                f"stopped in {which}; go on with: dlrm train --run {run.path} --resume"
            ) from stop
        except DivergedError as error:
            raise DivergedError(f"{which}: {error}") from error
        if number not in logged and not run.silent:
            who = {"model": member.model.name, "seed": member.seed}
            run.log("member", member=number, **who, **asdict(training_stats(trained)))
    return load_model(run, world)


def evaluate(
    config: TrainConfig,
    dataset: Dataset,
    run: Run,
    model: nn.Module,
    baseline: tuple[str, dict[str, dict[str, Any]]] | None = None,
    world: World = ALONE,
    *,
    trees: Mapping[str, Metrics] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write evaluation-SPLIT.json of the final model for each held-out split that has rows.

    Args:
        config: Of the run.
        dataset: Whose splits are evaluated.
        run: Where the files go.
        model: The best model of the run.
        baseline: Name of the model to compare with, and its own evaluations.
        world: The processes of the run, of which the first measures and writes.
        trees: What LightGBM predicts of each split; None where it is not known.

    Returns:
        Nothing but on the first process. By split: the name of the `model`, its `metrics`, those of
        the `members` of an ensemble, and where known those of the `optimum`, the `baseline` and
        the `trees`; of several labels those of the first, and those of each below `labels`.

    """
    schema, evaluations = dataset.schema, {}
    for name in HELD_OUT:
        split = dataset.split(name)
        if not len(split):
            continue
        predictions = predict_split(model, split, config.eval.batch_size, world)
        if run.silent:
            continue
        best = optimum(split)
        described = describe(predictions, schema)
        rivals = describe(trees[name], schema) if trees else {}
        for label, values in described.items():
            values["members"] = ensemble.scores(run, config, name, label)
            # What labels were drawn with is known of the first alone.
            known = best is not None and label == schema.labels[0]
            values["optimum"] = best.to_dict() if best and known else None
            values["baseline"] = None
            if baseline:
                metrics = ensemble.metrics_of(baseline[1][name], label)
                values["baseline"] = {"name": baseline[0], "metrics": metrics}
            if trees:
                values["trees"] = rivals[label]["metrics"]
        evaluations[name] = {
            "split": name,
            "model": ensemble.model_name(config),
            **by_label(described),
        }
        write_sealed(run.path / f"evaluation-{name}.json", evaluations[name])
    return evaluations
