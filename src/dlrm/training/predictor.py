"""Scores of raw rows in memory, from a run directory that is opened once.

    frame -> features.encode -> Batch -> model -> logits -> scores

`dlrm predict`, the estimators and whoever serves a run score through this. Nothing is written, no
labels are needed, and any number of threads may use one predictor: nothing in it changes after it
was opened.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.scoring import encode_frame, encode_pieces
from dlrm.errors import RunError
from dlrm.metrics import sigmoid
from dlrm.nn.embedding import embeddings_of
from dlrm.nn.mlp import freeze
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.config import from_dict
from dlrm.training.device import DeviceName, resolve_device
from dlrm.training.load import load_model


class Predictor:
    """The model of a run and the features that turn raw rows into its batches.

    Args:
        model: `forward(batch) -> logits (B, K)`, on its device; in evaluation mode from now on.
        features: That the model was trained on.
        device: Where the model is.
        batch_size: Rows that go through the model together, at most.

    Raises:
        RunError: The features are of another schema than the model; see `open`.

    """

    def __init__(
        self,
        model: nn.Module,
        features: Features,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 16384,
    ):
        self.model = model.eval()
        freeze(model)
        self.features = features
        self.device = torch.device(device)
        self.batch_size = batch_size
        # Elsewhere ids are checked here, because to look at them there is to wait.
        on_cpu = self.device.type == "cpu"
        self._layouts = [] if on_cpu else [e.layout for e in embeddings_of(model) if not e.derived]

    @classmethod
    def open(cls, run: Run | Path | str, device: DeviceName | torch.device = "auto") -> "Predictor":
        """Open a run: its best checkpoint, or those of all members of an ensemble.

        All is read now: the run directory may go afterwards.

        Args:
            run: A run directory, or its path.
            device: Where the model computes; auto is a GPU where there is one.

        Raises:
            RunError: There is no such run, or it has no checkpoint yet.
            DatasetError: Its features are missing or damaged.
            ConfigError: There is no such device.

        """
        opened = run if isinstance(run, Run) else Run.open(Path(run))
        # What follows reads the features wholly.
        opened.check(wholly=True)
        place = resolve_device(device) if isinstance(device, str) else device
        features = Features.load(opened.path).preload()
        if difference := opened.schema.difference(features.schema):
            raise RunError(f"{opened.path}: its features are of another schema: {difference}")
        batch_size = from_dict(opened.config).eval.batch_size
        model = load_model(opened, device=place)
        return cls(model, features, device=place, batch_size=batch_size)

    @property
    def schema(self) -> Schema:
        """Schema of the batches and of the labels that logits are for."""
        return self.features.schema

    def encode(self, frame: Any) -> Batch:
        """Return rows as a batch on the CPU, with labels of zero.

        Args:
            frame: n rows with the raw columns that the model was trained on, in any order, others
                ignored: of Polars, of pandas, or anything Polars makes a frame of.

        Raises:
            InputError: A column is missing, nested where it was not, or a number is none; names the
                column, and the row.

        """
        return self.batch(encode_frame(self.features, frame))

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (B, K) of a batch, float32: of a regression its predictions.

        Args:
            batch: B samples, on the CPU or the device; the logits are where it was.

        Raises:
            IdError: An id is out of range; names the feature.

        """
        for layout in self._layouts:
            layout.check(batch)
        return self._computed(batch)

    def scores(self, frame: Any, *, raw: bool = False) -> NDArray[np.float32]:
        """Return the scores (n, K) of the rows of a frame.

        A score is the probability that a label is 1, or the prediction of a regression. Of many
        rows `batch_size` go through the model together.

        Args:
            frame: n rows, see `encode`.
            raw: Whether to return logits instead of probabilities.

        """
        pieces = encode_pieces(self.features, frame)
        scores = [self.scores_of(encoded, raw=raw) for encoded in pieces]
        return scores[0] if len(scores) == 1 else np.concatenate(scores)

    def scores_of(self, encoded: Encoded, *, raw: bool = False) -> NDArray[np.float32]:
        """Return the scores (n, K) of rows that are encoded already; see `scores`."""
        whole = self.batch(encoded)
        scores = np.empty((len(whole), self.schema.num_labels), np.float32)
        numbers = raw or self.schema.task == "regression"
        for start, batch in self._pieces(whole):
            logits = self._computed(batch).numpy()
            scores[start : start + len(batch)] = logits if numbers else sigmoid(logits)
        return scores

    def _computed(self, batch: Batch) -> Tensor:
        """Return the logits (B, K) of a batch whose ids are known to be in range."""
        with torch.inference_mode():
            logits = self.model(batch.to(self.device, non_blocking=True)).float()
            return logits.to(batch.labels.device)

    def batch(self, encoded: Encoded) -> Batch:
        """Return rows that are encoded already as a batch on the CPU, with labels of zero."""
        labels = np.zeros((len(encoded), self.schema.num_labels), np.float32)
        return Batch.of(encoded.dense, encoded.ids, labels, encoded.lists)

    def _pieces(self, whole: Batch) -> Iterator[tuple[int, Batch]]:
        """Yield the first row of each piece of a batch, and the piece."""
        if len(whole) <= self.batch_size:
            yield 0, whole
            return
        for start in range(0, len(whole), self.batch_size):
            yield start, whole.slice(start, start + self.batch_size)
