"""A training run, wholly described."""

import dataclasses
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from dlrm import models
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.errors import ConfigError, unknown
from dlrm.metrics import selecting
from dlrm.models import ModelConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.parallel.config import Engine, ParallelConfig
from dlrm.schema import Task
from dlrm.training.average import AverageConfig
from dlrm.training.device import DeviceName
from dlrm.training.loss import LossConfig

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """When the model is measured, and which one is kept."""

    every: int = 0
    """Steps between evaluations; 0 for `per_epoch`. Every epoch also ends with one."""
    per_epoch: int = 10
    """Evaluations an epoch where `every` is 0."""
    min_steps: int = 1
    """Where `every` is 0: fewest steps to the next but at the end of an epoch; shorter epochs may
    end without one."""
    splits: tuple[Literal["validation", "test"], ...] = ("validation",)
    """Splits to measure then; the first of them chooses the best model, where it has rows."""
    metric: Literal[
        "auto", "auc", "log_loss", "normalized_entropy", "accuracy", "rmse", "mae", "r2"
    ] = "auto"
    """What makes a model the best: auc, accuracy and r2 the higher, the others the lower; of
    several labels their mean. auto is auc, and rmse where labels are any numbers."""
    patience: int = 0
    """Evaluations without a new best after which training stops early; 0 for never."""
    batch_size: int = 16384
    """Samples a batch."""

    def __post_init__(self) -> None:
        for name in ("every", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"eval.{name} is {getattr(self, name)}: it must not be negative")
        for name in ("per_epoch", "min_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"eval.{name} is {getattr(self, name)}: it must be positive")

    def interval(self, steps_per_epoch: int) -> int:
        """Return the steps from one evaluation to the next."""
        # Rounded up, so that the tenth of ten falls on the end of the epoch.
        return self.every or max(self.min_steps, -(-steps_per_epoch // self.per_epoch))

    def is_due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether the model is measured after this step, counted from 1."""
        every = self.interval(steps_per_epoch)
        epoch_ends = step % steps_per_epoch == 0
        return step % every == 0 or (epoch_ends and self._at_ends(steps_per_epoch))

    def evaluations(self, steps_per_epoch: int) -> float:
        """Return how often the model is measured in the first epoch.

        Where epochs may end without an evaluation it is the mean over many epochs.
        """
        every = self.interval(steps_per_epoch)
        if not self._at_ends(steps_per_epoch):
            return steps_per_epoch / every
        return -(-steps_per_epoch // every)

    def _at_ends(self, steps_per_epoch: int) -> bool:
        """Whether every epoch ends with an evaluation."""
        return self.every > 0 or self.interval(steps_per_epoch) <= steps_per_epoch

    def resolve(self, task: Task) -> str:
        """Return the name of the metric that chooses the best model where labels are of this kind.

        Raises:
            ConfigError: The metric is for labels of another kind; lists the choices.

        """
        return selecting(task, self.metric)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When the run is saved."""

    every: int = 0
    """Steps between checkpoints; 0 for one at each evaluation."""
    keep: int = 2
    """Newest checkpoints to keep, besides the best."""

    def __post_init__(self) -> None:
        if self.every < 0 or self.keep < 1:
            raise ConfigError(
                f"checkpoint.every is {self.every} and checkpoint.keep {self.keep}: "
                "at least 0 and 1 are needed"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A training run, wholly described."""

    data: str = "clicks"
    """A prepared dataset, raw files (a path, several separated by commas, or a pattern), or the
    generated log: clicks, clicks:ROWS or clicks:ROWS:SEED."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """How raw data are prepared; no meaning for a prepared dataset."""
    model: ModelConfig = field(default_factory=DLRMConfig)
    """The model."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is minimised."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    average: AverageConfig = field(default_factory=AverageConfig)
    """Whether a mean of the parameters over steps is kept instead of the last ones."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How the training split becomes batches."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """When the model is measured, and which one is kept."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the run is saved."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How several processes share the work, see --procs."""
    engine: Engine = "dlrm"
    """What spreads the tables over processes: dlrm, or torchrec (extra `torchrec`)."""
    framework: Literal["torch", "jax"] = "torch"
    """What trains: torch, or jax (extra `jax`), on one process of a CPU and in fp32."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Format of MLPs' products; auto is bf16 where the CPU multiplies it natively, else fp32."""
    device: DeviceName = "auto"
    """Where the model is and computes; auto is a GPU where there is one."""
    clip: float = 0.0
    """Largest norm of all gradients of a step together, to which larger ones are scaled; 0 for
    none."""
    epochs: int = 1
    """Passes over the training split."""
    max_steps: int = 0
    """Steps after which training ends in any case; 0 for no limit."""
    seed: int = 0
    """Seed of the initial parameters."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    threads: int = 0
    """Threads of torch; 0 for as many as it chooses. Resuming is exact for an equal number."""
    ensemble: int = 1
    """Models to train and average: member k = 0, 1, ... has `seed` + k and `loader.seed` + k."""
    ensemble_mean: Literal["logits", "probabilities"] = "logits"
    """What is averaged: scores before the sigmoid, or after it; a regression has none."""
    # For recipes: a model is more than a flag can say.
    ensemble_models: Annotated[tuple[ModelConfig, ...], tyro.conf.SuppressFixed] = ()
    """Further models of an ensemble: its members take `model` and these in turn."""
    from_run: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """A run to go on from with new rows: its vocabularies take up new values, and its model and
    optimizer go on from its best checkpoint."""
    refit: bool = False
    """Once validation has chosen the number of steps, train on training and validation rows."""
    baseline: bool = False
    """Also train logistic regression on the same batches, to compare with."""
    importance: bool = True
    """Measure in the end, for some seconds, how much each column matters, for the report."""
    tensorboard: bool = False
    """Also write TensorBoard events (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "log_every", "ensemble"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if self.max_steps < 0 or self.threads < 0:
            raise ConfigError(
                f"max_steps is {self.max_steps} and threads {self.threads}: "
                "they must not be negative"
            )
        if not 0 <= self.clip < inf:
            raise ConfigError(f"clip is {self.clip}: it must not be negative")
        if self.framework not in ("torch", "jax"):
            raise unknown("framework", self.framework, ("torch", "jax"))
        for name, only in (("precision", "fp32"), ("device", "cpu"), ("engine", "dlrm")):
            value = getattr(self, name)
            if self.framework == "jax" and value not in ("auto", only):
                raise ConfigError(
                    f"{name} is {value}: with --framework jax it must be {only}; or take torch"
                )


def with_tables(model: ModelConfig, tables: TablesConfig) -> ModelConfig:
    """Return the config of a model with other tables.

    Raises:
        ConfigError: It does not say how its tables are stored.

    """
    if not hasattr(model, "tables"):
        raise ConfigError(
            f"the model {model.name} has no field `tables`, a dlrm.nn.tables.TablesConfig: its "
            "tables cannot be others"
        )
    return dataclasses.replace(model, tables=tables)


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return a config as nested dicts of JSON-ready values."""
    values = dataclasses.asdict(config)
    values["model"]["name"] = _model_name(config.model)
    for value, model in zip(values["ensemble_models"], config.ensemble_models, strict=True):
        value["name"] = _model_name(model)
    return values


def _model_name(model: ModelConfig) -> str:
    """Return the name by which `dlrm.models.find` finds the config again."""
    kind = type(model)
    if kind in models.MODELS.values() or ":" in model.name:
        return model.name
    return f"{kind.__module__}:{kind.__qualname__}"


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Rebuild a config from what `to_dict` returned, JSON in between or not.

    Raises:
        ConfigError: A field is unknown; names it and lists the choices.

    """
    return _dataclass(TrainConfig, values, "config")


def _dataclass(cls: type[C], values: dict[str, Any], path: str) -> C:
    hints = get_type_hints(cls)
    if unknown := values.keys() - hints.keys():
        raise ConfigError(f"{path} has no field {sorted(unknown)[0]}; it has {', '.join(hints)}")
    return cls(
        **{name: _value(hints[name], value, f"{path}.{name}") for name, value in values.items()}
    )


def _value(hint: Any, value: Any, path: str) -> Any:
    if hint == ModelConfig and isinstance(value, dict):
        try:
            model = models.find(str(value.get("name")))
        except ConfigError as error:
            raise ConfigError(f"{path}.name is {value.get('name')!r}: {error}") from error
        return _dataclass(model, value, path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, value, path)
    if not isinstance(value, list | tuple):
        return value
    item = get_args(hint)[0] if get_origin(hint) is tuple else Any
    return tuple(_value(item, one, f"{path}[{at}]") for at, one in enumerate(value))
