"""The base of the estimators: parameters, training on a table, scoring, and being saved.

An estimator takes the road of `dlrm train FILE`: columns are inferred, features fitted on the rows
that are not kept for validation, and the model that validates best is kept. What remains of the run
is held in memory, as the bytes of its files.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm import terminal
from dlrm.data.coverage import Coverage
from dlrm.data.features import toml
from dlrm.data.features.column import Column
from dlrm.data.features.columns import Columns
from dlrm.data.features.infer_numbers import scale_of, within_components
from dlrm.data.prepare import prepare
from dlrm.data.scoring import encode_pieces
from dlrm.data.sources.frame import FrameSource, is_frame, to_polars
from dlrm.data.threads import check_pool, pool_lost
from dlrm.errors import (
    ConfigError,
    DatasetError,
    EstimatorError,
    InputError,
    Interrupted,
    MissingExtraError,
    RunError,
)
from dlrm.estimators.packed import pack, unpack
from dlrm.estimators.sklearn_base import HAS_SKLEARN, BaseEstimator
from dlrm.files import passing
from dlrm.metrics import SELECTING
from dlrm.models import another
from dlrm.recipes.own import own
from dlrm.run import Run
from dlrm.schema import Task
from dlrm.training.config import TrainConfig
from dlrm.training.predictor import Predictor
from dlrm.training.trainer import Trainer

SCHEMA_FILE = "schema.toml"
_FEWEST_ROWS = 20
"""Fewest rows that are compared with those of training."""


class Estimator(BaseEstimator, ABC):
    """A model of the catalogue that learns a label from a table.

    Abstract: see `dlrm.Classifier` and `dlrm.Regressor`. None leaves a parameter as `config` has
    it.

    Args:
        model: Name of a model, or `module:Class`.
        epochs: Most passes over the training rows.
        lr: Learning rate.
        batch_size: Samples a batch.
        patience: Evaluations without a gain in validation after which training stops; 0 for never.
        ensemble: Models to train and average.
        features: `auto` tries log counts, target means and crosses, and keeps what helps.
        schema: What the columns are: a file that `dlrm data infer` wrote, or the schema itself, its
            label not looked at; None infers it. The columns of an array are numbers.
        validation_fraction: Share of the rows that choose the best model, and are not trained on.
        config: A whole run to start from; None for the recipe `own`.
        random_state: Seed of the validation rows, the initial parameters and the order of the rows.
        verbose: Show progress, and what the columns were taken for.

    Attributes:
        n_features_in_: Columns of X.
        feature_names_in_: Their names, where X had any.
        evals_: Metrics of the best model on the validation rows, by name; empty without any.
        schema_: What the columns were taken for.

    """

    task: ClassVar[Task]
    """What the labels are."""

    n_features_in_: int
    feature_names_in_: NDArray[Any]
    evals_: dict[str, float | None]
    schema_: Columns

    def __init__(
        self,
        model: str | None = None,
        *,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        ensemble: int | None = None,
        features: Literal["given", "auto"] | None = None,
        schema: str | Path | Columns | None = None,
        validation_fraction: float = 0.1,
        config: TrainConfig | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ):
        if not HAS_SKLEARN:
            raise MissingExtraError(f"dlrm.{type(self).__name__}", "sklearn")
        self.model = model
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.patience = patience
        self.ensemble = ensemble
        self.features = features
        self.schema = schema
        self.validation_fraction = validation_fraction
        self.config = config
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on a table.

        Args:
            X: A frame of pandas or Polars; or an array (n, features) of numbers, NaN where missing.
            y: (n,) labels, of two different values; or any numbers in a regression.
            sample_weight: (n,) how much each row counts, at least 0; None for 1 each.

        Raises:
            ValueError: X, y, a weight or a parameter is not what it should be.
            DivergedError: The loss is no longer a number.

        """
        frame, y = self._checked(X, y)
        self._train(X, frame, self._labels(y), sample_weight)
        return self

    @abstractmethod
    def _labels(self, y: NDArray[Any]) -> NDArray[Any]:
        """Check y (n,), and return it as the model learns it."""

    def save(self, path: str | Path) -> None:
        """Write the run directory, which `load` and the commands read.

        Raises:
            RunError: The folder exists and is not empty.

        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        Run.check_new(Path(path))
        unpack(self._files, Path(path))

    @classmethod
    def load(cls, run: str | Path) -> Self:
        """Return the fitted estimator of a run that was trained on a table.

        Raises:
            RunError: It is no run, or not trained yet, or its labels are of another kind, or it was
                trained on a log of a known format.

        """
        opened = Run.open(Path(run))
        schema = opened.schema
        if schema.task != cls.task or schema.num_labels > 1:
            labels = ", ".join(schema.labels)
            raise RunError(
                f"{run} is a {schema.task} of {labels}: a {cls.__name__} is a {cls.task} of one "
                "label; dlrm.Predictor takes any run"
            )
        loaded = cls()
        loaded._files = pack(opened)
        loaded._open(opened.path)
        if loaded._predictor.features.source != "table":
            raise RunError(f"{run} was not trained on a table with named columns")
        names = [column.name for column in loaded.schema_.columns]
        loaded.n_features_in_ = len(names)
        loaded.feature_names_in_ = np.asarray(names, dtype=object)
        evaluation = opened.evaluation("validation")
        loaded.evals_ = evaluation["metrics"] if evaluation else {}
        loaded._restore(loaded._files)
        return loaded

    def _restore(self, files: dict[str, bytes]) -> None:
        """Read back, from all files of a run, those that `_extra_files` added."""

    def _extra_files(self) -> dict[str, Any]:
        """Return what this kind of estimator adds to a run, JSON-ready, by name of file."""
        return {}

    def _train(self, X: Any, frame: pl.DataFrame, y: NDArray[Any], sample_weight: Any) -> None:
        """Train on a frame and its labels (n,), and keep what remains of the run."""
        check_pool()
        label = _unused("label", frame.columns)
        columns = [pl.Series(label, y)]
        weight = None
        if sample_weight is not None:
            weight = _unused("weight", [*frame.columns, label])
            columns.append(pl.Series(weight, _weights(sample_weight, len(y))))
        source = FrameSource(frame.with_columns(columns))
        with (
            TemporaryDirectory(prefix="dlrm-") as folder,
            terminal.quiet(not self.verbose),
            passing(),
            as_estimator_errors(),
        ):
            place = Path(folder)
            config = self._config(place, frame, label, weight, arrays=not is_frame(X))
            prepared = prepare(source, place / "data", config.prepare, quiet=not self.verbose)
            trainer = Trainer.create(place / "run", "own", config, prepared.dataset)
            evaluations, run = trainer.evaluate(trainer.fit()), trainer.run
            for name, values in self._extra_files().items():
                (run.path / name).write_text(json.dumps(values))
            self._files = pack(run)
            self._open(run.path)
        judged = evaluations.get("validation")
        self.evals_ = judged["metrics"] if judged else {}

    def _logits(self, X: Any) -> NDArray[np.float64]:
        """Return what the model says of each row (n,)."""
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        frame = self._frame(X, reset=False)
        predictor = self._predictor
        coverage = Coverage(predictor.features, self._trained)
        scores = []
        with terminal.quiet(not self.verbose), as_estimator_errors():
            for encoded in encode_pieces(predictor.features, frame):
                coverage.add(encoded)
                scores.append(predictor.scores_of(encoded, raw=True)[:, 0])
        # Of a few rows, which many ask for at a time, it would take longer than the scores.
        if frame.height >= _FEWEST_ROWS and not pool_lost():
            coverage.look(frame)
            if warned := coverage.warnings():
                warnings.warn(f"rows unlike those of training: {'; '.join(warned)}", stacklevel=4)
        return np.concatenate(scores).astype(np.float64)

    def _checked(self, X: Any, y: Any) -> tuple[pl.DataFrame, NDArray[Any]]:
        """Check X and y, note what X is, and return them as a frame and (n,)."""
        from sklearn.utils.validation import check_consistent_length, column_or_1d

        if y is None:
            name = type(self).__name__
            raise EstimatorError(f"{name} requires y to be passed, but the target y is None")
        frame = self._frame(X, reset=True)
        if frame.height == 0:
            raise EstimatorError(f"Found a frame with 0 sample(s) (shape={frame.shape})")
        y = column_or_1d(y, warn=True)
        check_consistent_length(frame, y)
        return frame, y

    def _frame(self, X: Any, *, reset: bool) -> pl.DataFrame:
        """Check X, where `reset` note what it is, and return it as a frame."""
        from sklearn.utils.validation import validate_data

        if is_frame(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return to_polars(X)
        array: Any = validate_data(self, X, reset=reset, ensure_all_finite="allow-nan")
        # Of an estimator that was fitted on a frame, values are as they are.
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{number}" for number in range(self.n_features_in_)]
        if array.dtype == object:
            columns = zip(names, array.T, strict=True)
            return pl.DataFrame([pl.Series(str(n), v.tolist(), strict=False) for n, v in columns])
        return pl.DataFrame(array.astype(np.float64), schema=[*map(str, names)], nan_to_null=True)

    def _config(
        self, folder: Path, frame: pl.DataFrame, label: str, weight: str | None, *, arrays: bool
    ) -> TrainConfig:
        """Return the run that the parameters describe."""
        from sklearn.utils import check_random_state

        config = own() if self.config is None else self.config
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        held = self.validation_fraction
        if not 0 <= held < 1:
            raise ConfigError(f"validation_fraction is {held}: at least 0 and below 1 is needed")
        schema = self.schema
        if isinstance(schema, str | Path):
            schema = toml.load(Path(schema))
        elif schema is None and arrays:
            schema = _numbers(frame, label)
        if schema is not None:
            schema = replace(schema, labels=(label,), task=self.task, positive=None, weight=weight)
            (folder / SCHEMA_FILE).write_text(toml.dumps(schema))
        prepare, metric = config.prepare, config.eval.metric
        given = {
            "model": None if self.model is None else another(config.model, self.model),
            "ensemble_models": None if self.model is None else (),
            "optim": None if self.lr is None else replace(config.optim, lr=self.lr),
            "epochs": self.epochs,
            "ensemble": self.ensemble,
        }
        batch_size, patience = self.batch_size, self.patience
        return replace(
            config,
            data="X",
            prepare=replace(
                prepare,
                split="auto" if prepare.time or prepare.group else "random",
                fractions=(1 - held, held, 0.0),
                seed=int(seed),
                label=(label,),
                task=self.task,
                weight=weight,
                positive=None,
                schema=None if schema is None else str(folder / SCHEMA_FILE),
                features=replace(prepare.features, select=self.features or prepare.features.select),
            ),
            loader=replace(
                config.loader,
                seed=int(seed),
                batch_size=config.loader.batch_size if batch_size is None else batch_size,
            ),
            eval=replace(
                config.eval,
                patience=config.eval.patience if patience is None else patience,
                # That of the recipe is for labels of another kind.
                metric=metric if metric in SELECTING[self.task] else "auto",
            ),
            seed=int(seed),
            baseline=False,
            **{name: value for name, value in given.items() if value is not None},
        )

    def _open(self, folder: Path) -> None:
        """Take the model and its features out of a run directory."""
        self._predictor = Predictor.open(folder)
        self._trained = Run.open(folder).dataset.get("features", [])
        self.schema_ = self._predictor.features.columns

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {name: state[name] for name in state if name not in ("_predictor", "_trained")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_files" in state:
            with TemporaryDirectory(prefix="dlrm-") as folder:
                unpack(self._files, Path(folder) / "run")
                self._open(Path(folder) / "run")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _numbers(frame: pl.DataFrame, label: str) -> Columns:
    """Return the schema of an array: a column is a number, whatever its values look like."""
    columns = []
    for values in frame:
        scale, _, flag = scale_of(values)
        columns.append(
            Column(name=values.name, kind="number", scale=scale, missing_flag=flag, why="an array")
        )
    return Columns(labels=(label,), columns=within_components(tuple(columns)))


def _weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """Check the weights of the rows and return them (n,)."""
    from sklearn.utils.validation import check_consistent_length, column_or_1d

    if np.isscalar(sample_weight):
        return np.full(rows, sample_weight, np.float64)
    weights = column_or_1d(sample_weight, dtype=np.float64)
    check_consistent_length(range(rows), weights)
    if not weights.any():
        raise EstimatorError("sample_weight is zero for every sample: there is nothing to learn")
    return weights


def _unused(name: str, names: list[str]) -> str:
    while name in names:
        name += "_"
    return name


@contextmanager
def as_estimator_errors() -> Iterator[None]:
    """Raise what is wrong with data or parameters as scikit-learn's callers expect it."""
    try:
        yield
    except (ConfigError, InputError, DatasetError) as error:
        raise EstimatorError(str(error)) from error
    except Interrupted as stop:
        raise KeyboardInterrupt from stop
