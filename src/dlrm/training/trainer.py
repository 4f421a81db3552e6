"""A run from its start to its evaluations, on one process or on several.

trainer = Trainer.start("demo", config)        a new run directory
trainer = Trainer.resume("runs/demo-...")      or one that was stopped
evaluations = trainer.finish()                 trained, measured, beside its baseline
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from dlrm import terminal
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, DivergedError, Interrupted
from dlrm.files import remove_unfinished
from dlrm.metrics import Metrics
from dlrm.models.lr import LRConfig
from dlrm.nn import precision
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.training import checkpoint, ensemble
from dlrm.training.build import plan_of, pooling
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.device import resolve_device
from dlrm.training.evaluate import HELD_OUT, Evaluations, evaluate_run
from dlrm.training.growth import warnings_of
from dlrm.training.importance import keep_importance
from dlrm.training.load import load_model, training_stats
from dlrm.training.loop import Loop, NewStep
from dlrm.training.new_run import create_run, new_folder
from dlrm.training.rank_zero_first import rank_zero_first
from dlrm.training.refit import refit
from dlrm.training.run_data import (
    check_alike,
    check_batch,
    check_schema,
    check_trainable,
    meaning,
    open_data,
)
from dlrm.training.trees import default_trees


class Trained(NamedTuple):
    """What a training leaves."""

    model: nn.Module
    """The best model, by the metric and split of `config.eval`; of an ensemble the mean of the best
    of each member."""
    scored: Mapping[str, Metrics]
    """Split -> what it has predicted of it, as far as it is known."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """Trains the model of a run, or the members of its ensemble one after another."""

    config: TrainConfig
    dataset: Dataset
    """Its data, with the schema of the run."""
    run: Run
    """Where metrics, checkpoints and evaluations go."""
    world: World = ALONE
    """The processes of the run, all of which do what is called here; the first writes and shows."""
    again: bool = False
    """Whether to go on from the newest checkpoint, where there is one; finished members of an
    ensemble are not trained again."""
    title: str = ""
    """What stands beside the progress bar."""
    new_step: NewStep = Loop.step
    """Makes the training step, in the framework of the config."""

    @classmethod
    def start(
        cls,
        recipe: str,
        config: TrainConfig,
        path: Path | None = None,
        *,
        world: World = ALONE,
        procs: int = 1,
    ) -> "Trainer":
        """Prepare the data of a new run and make its directory.

        Args:
            recipe: Name of the recipe.
            config: Config of the run.
            path: Path of the directory; None for a new one under `runs/`.
            world: The processes of the run.
            procs: Processes that will go on with it, where these are others.

        Raises:
            ConfigError: A setting does not fit the data or the processes.
            PlanError: The tables do not fit the memory of so many processes.
            RunError: The folder exists and is not empty.
            DatasetError: The training rows have nothing to learn.

        """
        check_batch(config, max(procs, world.size))
        # Asked before the data are prepared, which may take long.
        resolve_device(config.device, world.local_rank, world.local_size)
        path = Path(world.broadcast_object(str(new_folder(recipe) if path is None else path)))
        with Run.locked(path, silent=not world.first):
            if world.first:
                Run.check_new(path)
            check_alike(world, recipe=recipe, **to_dict(config))
            # What `auto` means here is part of what a resumed run must repeat, on another machine
            # too.
            if config.framework == "jax":
                config = replace(config, precision="fp32", device="cpu")
            config = replace(
                config, precision=world.broadcast_object(precision.resolve(config.precision))
            )
            dataset = rank_zero_first(world, lambda: open_data(config))
            check_alike(world, **meaning(dataset))
            if procs > 1:
                plan_of(config, dataset.schema, procs, pooling(dataset))
            trainer = cls.create(path, recipe, config, dataset, world=world)
        if world.first:
            models = [member.model for member in ensemble.members(config)]
            terminal.say(warnings_of(models, dataset.schema))
        return trainer

    @classmethod
    def resume(
        cls, path: Path | str, config: TrainConfig | None = None, *, world: World = ALONE
    ) -> "Trainer":
        """Open a run directory to go on with it, with the config that it was started with.

        Args:
            path: Path of the directory; one whose making was interrupted is made to its end.
            config: The run's own, but for its device and for where its data are now; None for the
                run's own.
            world: The processes of the run, as many as have trained it or not.

        Raises:
            RunError: There is no such run, or its data have another schema now.
            ConfigError: A setting is not the run's, or a batch has too few samples for so many
                processes.

        """
        if world.first and (begun := Run.begun(Path(path))):
            with Run.locked(Path(path)):
                made_of = from_dict(begun["config"])
                cls.create(Path(path), begun["recipe"], made_of, open_data(made_of))
        world.barrier()
        run = Run.open(path, silent=not world.first)
        before = from_dict(run.config)
        config = config or before
        for field in fields(TrainConfig):
            then, now = getattr(before, field.name), getattr(config, field.name)
            if then != now and field.name not in ("data", "device"):
                raise ConfigError(
                    f"{run.path} was started with {field.name} {then}, and a resumed run keeps "
                    f"its config: leave the flag out, or start a new --run"
                )
        check_batch(config, world.size)
        # Where the data lie, not what the flag said: the working directory may be another one.
        there, moved = Path(run.dataset["path"]), config.data != before.data
        dataset = rank_zero_first(
            world, lambda: open_data(config) if moved else Dataset.open(there)
        )
        check_alike(world, **to_dict(config), **meaning(dataset))
        check_schema(run, dataset)
        return cls(config, dataset, run, world, again=True)

    @classmethod
    def create(
        cls,
        path: Path,
        recipe: str,
        config: TrainConfig,
        dataset: Dataset,
        *,
        world: World = ALONE,
        title: str = "",
    ) -> "Trainer":
        """Make a run directory with everything that later commands need to know.

        Raises:
            RunError: The folder exists and is not empty.
            DatasetError: The training rows have nothing to learn.

        """
        if config.threads:
            torch.set_num_threads(config.threads)
        check_trainable(dataset)
        run = create_run(path, recipe, config, dataset, world)
        return cls(config, dataset, run, world, title=title)

    @classmethod
    def complete(
        cls,
        path: Path,
        recipe: str,
        config: TrainConfig,
        dataset: Dataset,
        *,
        world: World = ALONE,
        title: str = "",
        new_step: NewStep = Loop.step,
    ) -> tuple[Run, Evaluations]:
        """Bring a run to its evaluations, from wherever it stands: not begun, killed or finished.

        Arguments and errors are those of `create` and `fit`.
        """
        again = world.broadcast_object(Run.is_whole(path))
        if not again and world.first:
            # Killed while it was made, it is no run yet: nothing in it is worth keeping.
            shutil.rmtree(path, ignore_errors=True)
        if again:
            run = Run.open(path, silent=not world.first)
            trainer = cls(config, dataset, run, world, again=True, title=title)
        else:
            trainer = cls.create(path, recipe, config, dataset, world=world, title=title)
            run = trainer.run
        known = {name: run.evaluation(name) for name in HELD_OUT if len(dataset.split(name))}
        done = {name: evaluation for name, evaluation in known.items() if evaluation is not None}
        if world.broadcast_object(bool(done) and len(done) == len(known)):
            return run, done
        return run, trainer.evaluate(replace(trainer, new_step=new_step).fit())

    def finish(self) -> Evaluations:
        """Train the run with all that its config asks for: baseline, refit, importance.

        Errors are those of `fit`, and a RunError where another process trains the run.
        """
        config, run, world = self.config, self.run, self.world
        with Run.locked(run.path, silent=not world.first):
            baseline = trees = None
            if config.baseline:
                simpler = baseline_of(config)
                _, metrics = self.complete(
                    run.path / "baseline", "baseline", simpler, self.dataset, world=world,
                    title="baseline", new_step=self.new_step,
                )  # fmt: skip
                baseline = (simpler.model.name, metrics)
                trees = default_trees(self.dataset, config.seed) if world.first else None
            trainer = self._refitted() if config.refit else self
            trained = trainer.fit()
            evaluations = trainer.evaluate(trained, baseline, trees)
            if config.importance:
                keep_importance(config, trainer.dataset, run, trained.model, world)
            world.barrier()
        return evaluations

    def fit(self) -> Trained:
        """Train the model, or the members of the ensemble.

        Raises:
            ConfigError: A setting does not fit the data, or there is no such device.
            CheckpointError: The newest checkpoint is damaged or belongs to another model.
            DivergedError: The loss is no longer a number.
            Interrupted: The user stopped the run, and it is saved.

        """
        config, run, world = self.config, self.run, self.world
        if self.again and not run.silent:
            remove_unfinished(run.path)
            # A line that was half written would spoil the next one.
            run.rewind(sys.maxsize)
        if config.ensemble > 1:
            return self._fit_members()
        if config.threads:
            torch.set_num_threads(config.threads)
        keep_freed_memory()
        loop = Loop.begin(config, self.dataset, run, world)
        progress = loop.resumed() if self.again else loop.fresh()
        loop.train(progress, self.new_step(loop, progress.step), self.title or "training")
        checkpoint.load_best(run, loop.built.model, world)
        return Trained(loop.built.net, loop.scored)

    def evaluate(
        self,
        trained: Trained,
        baseline: tuple[str, Evaluations] | None = None,
        trees: Mapping[str, Metrics] | None = None,
    ) -> Evaluations:
        """Write the final evaluations, see `dlrm.training.evaluate.evaluate_run`."""
        return evaluate_run(
            self.config, self.dataset, self.run, *trained, self.world,
            baseline=baseline, trees=trees,
        )  # fmt: skip

    def _fit_members(self) -> Trained:
        config, run = self.config, self.run
        logged = {row["member"] for row in run.metrics() if row["event"] == "member"}
        for number, member in enumerate(ensemble.members(config)):
            title = f"member {number + 1} of {config.ensemble}"
            try:
                trained, _ = self.complete(
                    ensemble.folder(run, number), run.recipe, member, self.dataset,
                    world=self.world, title=f"{self.title}, {title}" if self.title else title,
                    new_step=self.new_step,
                )  # fmt: skip
            except (Interrupted, KeyboardInterrupt) as stop:
                raise Interrupted(
                    f"stopped in {title}; go on with: dlrm train --run {run.path} --resume"
                ) from stop
            except DivergedError as error:
                raise DivergedError(f"{title}: {error}") from error
            if number not in logged and not run.silent:
                who = {"model": member.model.name, "seed": member.seed}
                run.log("member", member=number, **who, **asdict(training_stats(trained)))
        return Trained(load_model(run, self.world), {})

    def _refitted(self) -> "Trainer":
        """Choose the number of steps by the validation rows; return what trains on them, too."""
        if not len(self.dataset.split("validation")):
            raise ConfigError("refit needs validation rows to choose the number of steps by")
        first = replace(self.config, refit=False, baseline=False)
        chosen, _ = self.complete(
            self.run.path / "chosen", self.run.recipe, first, self.dataset, world=self.world,
            title="choosing", new_step=self.new_step,
        )  # fmt: skip
        config, dataset = refit(self.config, self.dataset, chosen, self.world)
        return replace(self, config=config, dataset=dataset)


def baseline_of(config: TrainConfig) -> TrainConfig:
    """Return the run that a model has to beat: logistic regression on the same batches.

    Adagrad, because it needs little tuning: rare ids keep large steps. On the generated log .03
    with the model's own decay reached AUC .737, .1 without decay .732.
    """
    return replace(
        config,
        model=LRConfig(),
        optim=replace(config.optim, name="adagrad", lr=0.03, warmup_steps=0),
        ensemble=1,
        ensemble_models=(),
        baseline=False,
        tensorboard=False,
        # A fresh one: that of another run knows fewer values.
        from_run=None,
    )
