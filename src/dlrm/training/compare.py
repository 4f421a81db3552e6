"""Several models on the same rows, each with several seeds; of several labels by the first.

Every model gets its own learning rate: factors of the recipe's are tried with the first seed, and
the best on the validation rows stays. Then it trains once for each seed, which decides initial
parameters and the order of the rows. All runs lie beside each other in one folder,
`<model>/lr-<rate>-seed-<seed>`; finished ones are not trained again, so that a comparison that was
stopped goes on where it was.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, DivergedError, RunError, unknown
from dlrm.json_file import write_sealed
from dlrm.metrics import HIGHER_IS_BETTER, measure_for
from dlrm.models import MODELS, another, find
from dlrm.run import Run
from dlrm.training import ensemble
from dlrm.training.checkpoint import opened, steps
from dlrm.training.comparison import TREES, Candidate, Comparison, Seed, ordered
from dlrm.training.config import TrainConfig, from_dict
from dlrm.training.evaluate import Evaluations
from dlrm.training.load import training_stats
from dlrm.training.trainer import Trainer
from dlrm.training.trees import fit_trees


def compare(
    folder: Path,
    recipe: str,
    config: TrainConfig,
    dataset: Dataset,
    *,
    models: Sequence[str],
    seeds: Sequence[int],
    factors: Sequence[float] = (1.0,),
) -> Comparison:
    """Train every model with every seed and return how they compare.

    Args:
        folder: Where the runs go.
        recipe: Name of the recipe that the config came from.
        config: What all runs share.
        dataset: What they train on.
        models: Names of models, and `trees`.
        seeds: At least one.
        factors: Multiples of the recipe's learning rate, that are tried with the first seed.

    Raises:
        ConfigError: A model is unknown, or there is nothing to choose or measure with.

    """
    check_models(models)
    split = next((name for name in ("test", "validation") if len(dataset.split(name))), None)
    if split is None:
        raise ConfigError(f"{dataset.path} has neither test nor validation rows to compare on")
    if len(factors) > 1 and not len(dataset.split("validation")):
        raise ConfigError(
            f"{dataset.path} has no validation rows to choose learning rates by: try one rate only"
        )

    def train(shared: TrainConfig, lr: float, seed: int, title: str) -> tuple[Run, Evaluations]:
        # Ensembles that shared members would differ less than luck makes them.
        first = seed * shared.ensemble
        trained = replace(
            shared,
            optim=replace(shared.optim, lr=lr),
            seed=first,
            loader=replace(shared.loader, seed=first),
        )
        # Of a model of one's own, `module:Class`, a name that any file system takes.
        path = folder / shared.model.name.replace(":", ".") / f"lr-{lr:g}-seed-{seed}"
        return Trainer.complete(path, recipe, trained, dataset, title=f"{title}, seed {seed}")

    def best_rate(shared: TrainConfig, title: str) -> float:
        rates = [shared.optim.lr * factor for factor in factors]
        if len(rates) == 1:
            return rates[0]
        reached: dict[float, float] = {}
        for lr in rates:
            # A rate may be too large for this model: that is what the others are tried for.
            with suppress(DivergedError):
                _, evaluations = train(shared, lr, seeds[0], f"{title}, rate {lr:g}")
                if (value := evaluations["validation"]["metrics"][metric]) is not None:
                    reached[lr] = sign * value
        if not reached:
            tried = ", ".join(f"{lr:g}" for lr in rates)
            raise DivergedError(f"{shared.model.name} diverged with every rate tried: {tried}")
        return max(reached, key=lambda lr: reached[lr])

    metric = config.eval.resolve(dataset.schema.task)
    sign = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    candidates, optimum = [], None
    for position, name in enumerate(models, start=1):
        title = f"{name} ({position} of {len(models)})"
        if name == TREES:
            candidates.append(_trees(folder, dataset, seeds, split, title))
            continue
        shared = replace(
            config,
            model=another(config.model, name),
            # What is compared is this model, not the mixture that a recipe may be.
            ensemble_models=(),
            checkpoint=replace(config.checkpoint, keep=1),
            baseline=False,
            tensorboard=False,
        )
        lr = best_rate(shared, title)
        runs = []
        for seed in seeds:
            run, evaluations = train(shared, lr, seed, title)
            runs.append((run, seed, evaluations[split]))
            optimum = evaluations[split]["optimum"]
        candidates.append(_candidate(ensemble.model_name(shared), lr, runs))
    return ordered(str(dataset.path), split, metric, candidates, optimum, dataset.schema.task)


def check_models(names: Sequence[str]) -> None:
    """Raise a ConfigError if one of these is neither a model nor `trees`."""
    for name in names:
        if ":" in name:
            find(name)
        elif name not in (*MODELS, TREES):
            raise unknown("model", name, (*MODELS, TREES, "module:Class"))


def of_runs(paths: Sequence[Path]) -> Comparison:
    """Return how finished runs compare; those of one model and equal settings are its seeds.

    Raises:
        RunError: A run is not finished, or two were measured on different rows.

    """
    runs = [Run.open(path) for path in paths]
    for run in runs[1:]:
        _same_rows(runs[0], run)
    splits = [name for name in ("test", "validation") if all(run.evaluation(name) for run in runs)]
    if not splits:
        names = ", ".join(str(run.path) for run in runs if not run.evaluation("test"))
        raise RunError(f"not all runs are finished and evaluated: {names}")
    split = splits[0]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        config = from_dict(run.config)
        settings = repr(replace(config, seed=0, loader=replace(config.loader, seed=0)))
        groups.setdefault(settings, []).append(run)
    candidates, optimum = [], None
    names = [ensemble.model_name(from_dict(same[0].config)) for same in groups.values()]
    for model, same in zip(names, groups.values(), strict=True):
        _no_shared_members(same)
        seeds = [(r, from_dict(r.config).seed, r.evaluation(split) or {}) for r in same]
        optimum = seeds[-1][2].get("optimum")
        name = model if names.count(model) == 1 else f"{model} ({same[0].path})"
        candidates.append(_candidate(name, from_dict(same[0].config).optim.lr, seeds))
    task = runs[0].schema.task
    metric = from_dict(runs[0].config).eval.resolve(task)
    return ordered(str(runs[0].dataset["path"]), split, metric, candidates, optimum, task)


def _candidate(name: str, lr: float, runs: Sequence[tuple[Run, int, dict[str, Any]]]) -> Candidate:
    """Return a model of some runs, each with its seed and its evaluation."""
    seeds = []
    for run, seed, evaluation in runs:
        stats = training_stats(run)
        seeds.append(
            Seed(
                seed=seed,
                metrics=evaluation["metrics"],
                elapsed_s=stats.elapsed_s,
                samples_per_s=stats.samples_per_s,
                run=str(run.path),
            )
        )
    return Candidate(name=name, lr=lr, parameters=_parameters(runs[0][0]), seeds=tuple(seeds))


def _trees(
    folder: Path, dataset: Dataset, seeds: Sequence[int], split: str, title: str
) -> Candidate:
    runs = []
    for seed in seeds:
        path = folder / TREES / f"seed-{seed}"
        known = path / f"evaluation-{split}.json"
        if not known.is_file():
            path.mkdir(parents=True, exist_ok=True)
            predicted = fit_trees(dataset, seed, title=f"{title}, seed {seed}")
            metrics = measure_for(dataset.schema.task)(*predicted[split].label()).to_dict()
            write_sealed(known, {"split": split, "metrics": metrics})
        metrics = Run(path).evaluation(split) or {}
        runs.append(Seed(seed=seed, metrics=metrics["metrics"]))
    return Candidate(name=TREES, lr=None, parameters=None, seeds=tuple(runs))


def _parameters(run: Run) -> int | None:
    """Return how many numbers a finished run has trained, of an ensemble all members together."""
    if (count := from_dict(run.config).ensemble) > 1:
        counts = [_parameters(Run(ensemble.folder(run, k))) for k in range(count)]
        return sum(numbers for numbers in counts if numbers is not None) or None
    folder = run.path / "checkpoints"
    if not (saved := steps(folder)):
        return None
    with opened(folder / f"step-{saved[-1]:09d}", "model") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _no_shared_members(runs: Sequence[Run]) -> None:
    """Raise a RunError if two ensembles of equal settings have members of the same seed."""
    begins = sorted((from_dict(run.config).seed, str(run.path)) for run in runs)
    size = from_dict(runs[0].config).ensemble
    for (seed, name), (following, other) in pairwise(begins):
        if size > 1 and following - seed < size:
            raise RunError(
                f"{name} and {other} have members in common, whose seeds begin at {seed} and "
                f"{following}: train ensembles of {size} with --seed 0, {size}, {2 * size}, ... to "
                "tell how much luck makes them differ"
            )


def _same_rows(one: Run, other: Run) -> None:
    """Raise a RunError unless two runs were measured on the same rows of the same data."""
    for what in ("source", "splits"):
        mine, value_there = one.dataset.get(what), other.dataset.get(what)
        if mine != value_there:
            raise RunError(
                f"{one.path} and {other.path} were measured on different rows ({what}: {mine} "
                f"against {value_there}); train both on the same prepared dataset to compare them"
            )
    if difference := one.schema.difference(other.schema):
        raise RunError(f"{one.path} and {other.path} have different features: {difference}")
