"""`dlrm.Classifier`: the models as a scikit-learn estimator.

    classifier = dlrm.Classifier(model="dlrm").fit(X, y)
    classifier.predict_proba(X)

It takes the road of `dlrm train FILE`: columns are inferred, features fitted on the rows that are
not kept for validation, and the model that validates best is kept. What remains of the run is held
in memory, as the bytes of its files.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from dlrm import terminal
from dlrm.batch import Batch
from dlrm.data.encoder import Encoded
from dlrm.data.scoring import frame_rows
from dlrm.data.tabular import toml
from dlrm.data.tabular.columns import Column, Columns
from dlrm.data.tabular.encoder import TableEncoder, open_encoder
from dlrm.data.tabular.frames import is_frame, to_polars
from dlrm.data.tabular.prepare import prepare_table
from dlrm.data.tabular.source import FrameTable
from dlrm.errors import (
    ConfigError,
    DatasetError,
    EstimatorError,
    InputError,
    Interrupted,
    MissingExtraError,
    RunError,
)
from dlrm.files import passing
from dlrm.metrics import sigmoid
from dlrm.models import another
from dlrm.recipes.own import own
from dlrm.run import Run
from dlrm.training import runner
from dlrm.training.config import TrainConfig
from dlrm.training.evaluate import predict as predict_batches
from dlrm.training.load import load_model
from dlrm.training.packed import pack, unpack

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, ClassifierMixin

    HAS_SKLEARN = True
else:
    try:
        from sklearn.base import BaseEstimator, ClassifierMixin

        HAS_SKLEARN = True
    except ImportError:
        # The name stays importable; the error comes with the first use, and says what to install.
        BaseEstimator = ClassifierMixin = object
        HAS_SKLEARN = False

SCHEMA_FILE = "schema.toml"
BATCH_ROWS = 16384
CLASSES_FILE = "classes.json"
"""Beside what every run has: what the two labels are called."""


class Classifier(ClassifierMixin, BaseEstimator):
    """A model of the catalogue that learns a binary label from a table.

    None leaves a parameter as `config` has it.

    Args:
        model: Name of a model.
        epochs: Most passes over the training rows.
        lr: Learning rate.
        batch_size: Samples a batch.
        patience: Evaluations without a gain in validation after which training stops; 0 for never.
        ensemble: Models to train and average.
        features: `auto` tries buckets, log counts, target means and crosses, and keeps what helps.
        schema: What the columns are: a file that `dlrm data infer` wrote, or the schema itself, its
            label not looked at; None infers it. The columns of an array are numbers.
        validation_fraction: Share of the rows that choose the best model, and are not trained on.
        config: A whole run to start from; None for the recipe `own`.
        random_state: Of the validation rows, the initial parameters and the order of the rows.
        verbose: Show progress, and what the columns were taken for.

    Attributes:
        classes_: (2,) the labels, sorted; the second one is the click.
        n_features_in_: Columns of X.
        feature_names_in_: Their names, where X had any.
        evals_: Metrics of the best model on the validation rows, by name; empty without any.
        schema_: What the columns were taken for.

    """

    classes_: NDArray[Any]
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
            raise MissingExtraError("dlrm.Classifier", "sklearn")
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

    def fit(self, X: Any, y: Any) -> "Classifier":
        """Train on a table.

        Args:
            X: A frame of pandas or Polars; or an array (n, features) of numbers, NaN where missing.
            y: (n,) labels, of two different values.

        Raises:
            ValueError: X, y or a parameter is not what it should be.
            DivergedError: The loss is no longer a number.

        """
        frame, labels = self._training_table(X, y)
        name = _unused("label", frame.columns)
        table = FrameTable(frame.with_columns(pl.Series(name, labels)))
        with (
            TemporaryDirectory(prefix="dlrm-") as folder,
            terminal.quiet(not self.verbose),
            passing(),
            _as_estimator_errors(),
            # The caller's own random numbers go on as if nothing had been drawn.
            torch.random.fork_rng(devices=[]),
        ):
            place = Path(folder)
            config = self._config(place, frame, name, arrays=not is_frame(X))
            made = prepare_table(table, place / "data", config.prepare, quiet=not self.verbose)
            run = runner.create(place / "run", "own", config, made.dataset)
            model = runner.fit(config, made.dataset, run)
            seen = runner.evaluate(config, made.dataset, run, model)
            (run.path / CLASSES_FILE).write_text(json.dumps(self.classes_.tolist()))
            self._files = pack(run)
            self._open(run.path)
        self.evals_ = seen["validation"]["metrics"] if "validation" in seen else {}
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the logit of each row (n,): above 0 where the second class is the likelier."""
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self)
        if is_frame(X):
            validate_data(self, X, reset=False, skip_check_array=True)
            frame = to_polars(X)
        else:
            array = validate_data(self, X, reset=False, ensure_all_finite="allow-nan")
            frame = _of_array(array, self._names())
        with terminal.quiet(not self.verbose), _as_estimator_errors():
            rows = frame_rows(self._encoder, frame)
            logits, _ = predict_batches(self._model, _batches(rows.read())).arrays()
        return logits.astype(np.float64)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of both classes (n, 2)."""
        click = sigmoid(self.decision_function(X))
        return np.stack([1 - click, click], axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the likelier class of each row (n,)."""
        likelier = (self.decision_function(X) > 0).astype(np.intp)
        return self.classes_[likelier]

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
    def load(cls, run: str | Path) -> "Classifier":
        """Return the fitted classifier of a run that was trained on a table.

        Raises:
            RunError: It is no run, or of a log of a known format, or not trained yet.

        """
        opened = Run.open(Path(run))
        made = cls()
        encoder = open_encoder(opened.path)
        if not isinstance(encoder, TableEncoder) or encoder.source != "table":
            raise RunError(f"{run} was not trained on a table with named columns")
        made._files = pack(opened)
        made._open(opened.path)
        names = [column.name for column in encoder.columns.columns]
        classes = json.loads(made._files.get(CLASSES_FILE, b"[0, 1]"))
        made.classes_ = np.asarray(classes)
        made.n_features_in_ = len(names)
        made.feature_names_in_ = np.asarray(names, dtype=object)
        evaluation = opened.evaluation("validation")
        made.evals_ = evaluation["metrics"] if evaluation else {}
        return made

    def _training_table(self, X: Any, y: Any) -> tuple[pl.DataFrame, NDArray[np.uint8]]:
        """Check X and y, note what they are, and return them as a frame and 0 or 1."""
        from sklearn.utils.multiclass import check_classification_targets, type_of_target
        from sklearn.utils.validation import (
            assert_all_finite,
            check_consistent_length,
            column_or_1d,
            validate_data,
        )

        if y is None:
            raise EstimatorError("Classifier requires y to be passed, but the target y is None")
        if is_frame(X):
            validate_data(self, X, skip_check_array=True)
            frame = to_polars(X)
            if frame.height == 0:
                raise EstimatorError(f"Found a frame with 0 sample(s) (shape={frame.shape})")
        else:
            array = validate_data(self, X, ensure_all_finite="allow-nan")
            frame = _of_array(array, self._names())
        y = column_or_1d(y, warn=True)
        check_consistent_length(frame, y)
        # Asked first, because the next one warns of what it casts.
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise EstimatorError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}."
            )
        if len(self.classes_) < 2:
            raise EstimatorError(
                f"y has one class alone, {self.classes_[0]!r}, in {len(y)} sample(s): "
                "there is nothing to learn"
            )
        return frame, codes.astype(np.uint8)

    def _config(
        self, folder: Path, frame: pl.DataFrame, label: str, *, arrays: bool
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
            schema = replace(schema, label=label, positive=None)
            (folder / SCHEMA_FILE).write_text(toml.dumps(schema))
        features = config.prepare.features
        ensemble = config.ensemble if self.ensemble is None else self.ensemble
        return replace(
            config,
            data="X",
            prepare=replace(
                config.prepare,
                split="random",
                fractions=(1 - held, held, 0.0),
                seed=int(seed),
                label=label,
                positive=None,
                schema=None if schema is None else str(folder / SCHEMA_FILE),
                features=replace(features, select=self.features or features.select),
            ),
            model=config.model if self.model is None else another(config.model, self.model),
            optim=config.optim if self.lr is None else replace(config.optim, lr=self.lr),
            loader=replace(
                config.loader,
                seed=int(seed),
                batch_size=_or(self.batch_size, config.loader.batch_size),
            ),
            eval=replace(config.eval, patience=_or(self.patience, config.eval.patience)),
            epochs=_or(self.epochs, config.epochs),
            seed=int(seed),
            ensemble=ensemble,
            ensemble_models=config.ensemble_models if self.model is None else (),
            baseline=False,
        )

    def _names(self) -> list[str]:
        """Return the columns of X, or x0, x1, ... where it has no names."""
        if hasattr(self, "feature_names_in_"):
            return [str(name) for name in self.feature_names_in_]
        return [f"x{number}" for number in range(self.n_features_in_)]

    def _open(self, folder: Path) -> None:
        """Take the model and the encoder out of a run directory."""
        encoder = open_encoder(folder)
        assert isinstance(encoder, TableEncoder)
        self._encoder, self._model = encoder, load_model(Run.open(folder))
        self.schema_ = encoder.columns

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {name: state[name] for name in state if name not in ("_encoder", "_model")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_files" in state:
            with TemporaryDirectory(prefix="dlrm-") as folder:
                unpack(self._files, Path(folder) / "run")
                self._open(Path(folder) / "run")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        return tags


def _of_array(array: Any, names: list[str]) -> pl.DataFrame:
    if array.dtype == object:
        # Of a classifier that was fitted on a frame: values as they are.
        columns = [
            pl.Series(name, array[:, at].tolist(), strict=False) for at, name in enumerate(names)
        ]
        return pl.DataFrame(columns)
    return pl.DataFrame(array.astype(np.float64), schema=names, nan_to_null=True)


def _numbers(frame: pl.DataFrame, label: str) -> Columns:
    """Return the schema of an array: a column is a number, whatever its values look like."""
    return Columns(
        label=label,
        columns=tuple(
            Column(name=values.name, kind="number", missing_flag=values.has_nulls(), why="an array")
            for values in frame
        ),
    )


def _unused(name: str, names: list[str]) -> str:
    while name in names:
        name += "_"
    return name


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _batches(read: Iterator[Encoded]) -> Iterator[Batch]:
    for encoded in read:
        whole = Batch.of(encoded.dense, encoded.ids, encoded.labels, encoded.offsets)
        for start in range(0, len(whole), BATCH_ROWS):
            yield whole.slice(start, start + BATCH_ROWS)


@contextmanager
def _as_estimator_errors() -> Iterator[None]:
    """Raise what is wrong with data or parameters as scikit-learn's callers expect it."""
    try:
        yield
    except (ConfigError, InputError, DatasetError) as error:
        raise EstimatorError(str(error)) from error
    except Interrupted as stop:
        raise KeyboardInterrupt from stop
