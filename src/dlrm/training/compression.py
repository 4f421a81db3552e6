"""The tables of a finished run made smaller in several ways, and what each costs in accuracy.

Fewer bits a number need no training: the best model of the run is measured again. Other tables
(quotient-remainder, mixed dimensions, hashing) are trained from the start with the config of the
run, each in a run directory of its own; finished ones are not trained again, and killed ones go on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import nn

from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, DatasetError
from dlrm.metrics import Values
from dlrm.nn.embedding import embeddings_of
from dlrm.nn.precision import resolve
from dlrm.nn.quantized import TableDtype, quantize
from dlrm.nn.tables import TablesConfig, tables_of
from dlrm.run import Run
from dlrm.training.config import TrainConfig, with_tables
from dlrm.training.ensemble import members
from dlrm.training.evaluate import predict_split
from dlrm.training.load import load_model
from dlrm.training.trainer import Trainer

PRECISIONS: tuple[TableDtype, ...] = get_args(TableDtype)
METHODS = ("qr", "mixed_dim", "hash")
"""Compressions that need training."""

TOLERANCE = 0.001
"""Share of the log loss that makes a difference between models of clicks, or of the RMSE between
models of numbers."""

Error = Literal["log_loss", "rmse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Tables of one kind."""

    name: str
    method: str
    """`fp32` or however the run stores them, a precision, or one of `METHODS`."""
    size_bytes: int
    """Bytes of all tables, as a checkpoint holds them."""
    ratio: float
    """How many times larger plain float32 tables are."""
    log_loss: float | None = None
    """Log loss of clicks; None of numbers, as the next three."""
    auc: float | None = None
    normalized_entropy: float | None = None
    calibration: float | None = None
    rmse: float | None = None
    """RMSE of numbers; None of clicks, as the next."""
    mae: float | None = None
    auc_change: float | None = None
    """Change against the run, as what follows."""
    log_loss_change: float | None = None
    rmse_change: float | None = None
    run: str | None = None
    """The run directory of one that was trained."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The tables of a run, and smaller ones; of several labels the first is measured."""

    candidates: tuple[Candidate, ...]
    """The run itself first."""
    skipped: dict[str, str]
    """Name of what cannot apply -> why."""

    @property
    def metric(self) -> Error:
        """The metric that judges tables; less is better."""
        return "log_loss" if self.base.rmse is None else "rmse"

    def error(self, candidate: Candidate) -> float:
        """Return the log loss of clicks, or the RMSE of numbers."""
        return getattr(candidate, self.metric)

    def change(self, candidate: Candidate) -> float:
        """Return how much larger that is than the run's."""
        return self.error(candidate) - self.error(self.base)

    @property
    def base(self) -> Candidate:
        """The run as it is."""
        return self.candidates[0]

    @property
    def frontier(self) -> list[Candidate]:
        """Candidates that no other beats in memory and `metric` both, the smallest first."""
        best: list[Candidate] = []
        for candidate in sorted(self.candidates, key=lambda c: (c.size_bytes, self.error(c))):
            if not best or self.error(candidate) < self.error(best[-1]):
                best.append(candidate)
        return best

    @property
    def choice(self) -> Candidate:
        """The smallest whose log loss or RMSE is within `TOLERANCE` of the run's."""
        most = self.error(self.base) * (1 + TOLERANCE)
        return min(
            (candidate for candidate in self.candidates if self.error(candidate) <= most),
            key=lambda candidate: (candidate.size_bytes, self.error(candidate)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return this sweep JSON-ready."""
        on_frontier = {candidate.name for candidate in self.frontier}
        return {
            "candidates": [
                {**asdict(candidate), "frontier": candidate.name in on_frontier}
                for candidate in self.candidates
            ],
            "metric": self.metric,
            "choice": self.choice.name,
            "tolerance": TOLERANCE,
            "skipped": self.skipped,
        }


def variants(
    base: TablesConfig,
    methods: Sequence[str],
    collisions: Sequence[int],
    temperatures: Sequence[float],
) -> Iterator[tuple[str, str, TablesConfig]]:
    """Yield name, method and config of tables to train, stored and initialised as those of a run.

    Collisions are the sizes of the methods qr and hash, temperatures those of mixed_dim.
    """
    plain = TablesConfig(storage=base.storage, init_std=base.init_std)
    for method in methods:
        if method == "mixed_dim":
            for size in temperatures:
                tables = replace(plain, compression="mixed_dim", temperature=size)
                yield f"{method} {size:g}", method, tables
            continue
        for ids in collisions:
            tables = replace(
                plain,
                compression="qr" if method == "qr" else "hash",
                collisions=ids,
                # A table must be a few times larger than what replaces it, or nothing is saved.
                threshold=max(plain.threshold, 4 * ids),
            )
            yield f"{method} {ids}", method, tables


def sweep(
    run: Run,
    config: TrainConfig,
    dataset: Dataset,
    split: Split,
    trained: Sequence[tuple[str, str, TablesConfig]],
    tick: Callable[[], None],
) -> Sweep:
    """Measure the tables of a run, with fewer bits, and other tables trained in their place.

    Args:
        run: A finished run; what is trained goes into `compress/` in it.
        config: Its config.
        dataset: What it was trained on.
        split: Rows to measure.
        trained: Tables to train, see `variants`.
        tick: Called after each measurement without training.

    Raises:
        RunError: The run has no checkpoint yet.
        Interrupted: The user stopped a training, and it is saved.

    """
    # Where bits are few: no GPU has kernels for them.
    cpu = torch.device("cpu")
    model = load_model(run, device=cpu)
    base = _measured(_stored(config), _stored(config), model, split, config)
    candidates, skipped = [base], dict[str, str]()
    tick()
    for to in PRECISIONS:
        try:
            candidates.append(_measured(to, to, quantize(model, to), split, config))
        except ConfigError as error:
            skipped[to] = str(error)
        tick()
    for number, (name, method, tables) in enumerate(trained, start=1):
        try:
            again = replace(
                config,
                model=with_tables(config.model, tables),
                ensemble_models=tuple(
                    with_tables(model, replace(tables, init_std=tables_of(model).init_std))
                    for model in config.ensemble_models
                ),
                baseline=False,
                # The one that trains tables of every kind.
                framework="torch",
            )
            # Refused before anything is trained where tables of this kind do not fit the features.
            for member in members(again):
                member.model.build(dataset.schema, resolve(config.precision))
        except ConfigError as error:
            skipped[name] = str(error)
            continue
        path = run.path / "compress" / name.replace(" ", "-")
        path.parent.mkdir(exist_ok=True)
        title = f"{name} ({number} of {len(trained)})"
        trained_run, _ = Trainer.complete(path, run.recipe, again, dataset, title=title)
        candidate = _measured(name, method, load_model(trained_run, device=cpu), split, config)
        candidates.append(replace(candidate, run=str(path)))
    return Sweep(tuple(_beside(candidate, base) for candidate in candidates), skipped)


def _stored(config: TrainConfig) -> str:
    """Return what the tables of a run are called."""
    tables = tables_of(config.model)
    if tables.qat != "none":
        return f"qat {tables.qat}"
    return tables.storage if tables.compression == "none" else tables.compression


def _measured(
    name: str, method: str, model: nn.Module, split: Split, config: TrainConfig
) -> Candidate:
    values: Values = predict_split(model, split, config.eval.batch_size).compute()[0]
    if not values.samples:
        raise DatasetError("there are no rows to measure")
    parts = embeddings_of(model)
    size_bytes = sum(part.size_bytes for part in parts)
    if not size_bytes:
        raise ConfigError(
            "the model has no tables in embeddings of dlrm.nn: nothing is to compress"
        )
    plain_bytes = sum(4 * part.dim * sum(part.layout.sizes) for part in parts)
    names = ("auc", "log_loss", "normalized_entropy", "calibration")
    if values.task == "regression":
        names = ("rmse", "mae")
    measures: dict[str, Any] = {name: getattr(values, name) for name in names}
    ratio = plain_bytes / size_bytes
    return Candidate(name=name, method=method, size_bytes=size_bytes, ratio=ratio, **measures)


def _beside(candidate: Candidate, base: Candidate) -> Candidate:
    """Return a candidate with its changes; undefined where the rows have one class only."""
    changes: dict[str, float | None] = {}
    for metric in ("auc", "log_loss", "rmse"):
        value, base_value = getattr(candidate, metric), getattr(base, metric)
        changes[f"{metric}_change"] = None if None in (value, base_value) else value - base_value
    return replace(candidate, **changes)
