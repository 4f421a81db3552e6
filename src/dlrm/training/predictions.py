"""Predictions of a model, gathered batch by batch where they were computed."""

import torch
from torch import Tensor

from dlrm.batch import Batch
from dlrm.metrics import Array
from dlrm.parallel.world import World


class Predictions:
    """Logits, labels and weights of samples: tensors until somebody measures them.

    Nothing waits for a device before that.

    Args:
        num_labels: K.

    """

    def __init__(self, num_labels: int = 1):
        self.num_labels = num_labels
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._weights: list[Tensor] = []

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Add the logits (B, K) of a batch."""
        self.add(logits.detach(), batch.labels, batch.weights)

    def add(self, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
        """Add logits (B, K), labels (B, K), and weights (B,), or (0,) where samples have none."""
        self._logits.append(logits)
        self._labels.append(labels)
        if weights is not None and len(weights):
            self._weights.append(weights)

    def __len__(self) -> int:
        return sum(labels.shape[0] for labels in self._labels)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return float32 logits (S, K), labels (S, K) and weights on the CPU, in their order.

        Weights are (S,), or (0,) where samples have none.
        """
        none = torch.empty(0, self.num_labels)
        return (
            _joined(self._logits, none),
            _joined(self._labels, none),
            _joined(self._weights, none[:, 0]),
        )

    def gathered(self, world: World) -> list["Predictions"]:
        """Return those of each process, by rank, to all of them."""
        parts = [world.gather(tensor) for tensor in self.tensors()]
        gathered = []
        for logits, labels, weights in zip(*parts, strict=True):
            own = Predictions(self.num_labels)
            own.add(logits, labels, weights)
            gathered.append(own)
        return gathered

    def arrays(self) -> tuple[Array, Array, Array | None]:
        """Return logits (S, K), labels (S, K), and weights (S,) where samples have any."""
        logits, labels, weights = (tensor.numpy() for tensor in self.tensors())
        return logits, labels, weights if len(weights) else None


def _joined(pieces: list[Tensor], none: Tensor) -> Tensor:
    if not pieces:
        return none
    # What a checkpoint had lies on the CPU: joined where the rest is, so as to wait for that once.
    device = pieces[-1].device
    return torch.cat([piece.to(device) for piece in pieces]).cpu().float()
