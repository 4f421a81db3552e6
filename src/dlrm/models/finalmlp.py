"""FinalMLP: two MLPs over the same inputs, fused by a bilinear form.

    x = [dense, e_1, ..., e_T]
    u = mlp_1(x * g_1),  v = mlp_2(x * g_2)        gates g, see `dlrm.nn.gate`; without them 1
    logit = b + w_1 . u + w_2 . v + sum over heads k of u_k^T W_k v_k

Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023,
arXiv 2304.00902.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError, unknown
from dlrm.nn.embedding import Embeddings
from dlrm.nn.fusion import BilinearFusion
from dlrm.nn.gate import Gate
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class FinalMLP(nn.Module):
    """Two streams, each with a gate of its own if there are gates.

    Args:
        num_dense: N, dense features.
        embeddings: Of the T categorical features, of dimension D.
        first: Sizes of the first stream's layers; the last is its output.
        second: Sizes of the second stream's.
        heads: Of the fusion; they divide both outputs.
        gate: Hidden size of the gates; 0 for no gates.
        contexts: For each stream the position of the categorical feature whose embedding its gate
            sees; None for a learnt context.
        dropout: Share of the streams' units dropped in training.
        batch_norm: Whether the streams' layers are normalized.
        precision: Of the streams and gates, see `dlrm.nn.mlp`.

    """

    def __init__(
        self,
        num_dense: int,
        embeddings: Embeddings,
        *,
        first: Sequence[int],
        second: Sequence[int],
        heads: int,
        gate: int = 0,
        contexts: tuple[int | None, int | None] = (None, None),
        dropout: float = 0.0,
        batch_norm: bool = False,
        precision: ComputeDtype = "fp32",
    ):
        super().__init__()
        dim = embeddings.dim
        width = num_dense + len(embeddings.rows) * dim
        self.embeddings = embeddings
        self.contexts = contexts
        self.gates = nn.ModuleList(
            Gate(width, dim, gate, given=context is not None, precision=precision)
            for context in contexts
            if gate
        )
        self.streams = nn.ModuleList(
            MLP(
                [width, *sizes],
                relu_last=True,
                precision=precision,
                dropout=dropout,
                batch_norm=batch_norm,
            )
            for sizes in (first, second)
        )
        self.fusion = BilinearFusion(first[-1], second[-1], heads)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B,)."""
        e = self.embeddings(batch.ids, batch.offsets)
        x = torch.cat([batch.dense, e.flatten(1)], dim=1)
        inputs = [x, x]
        for i, gate in enumerate(self.gates):
            t = self.contexts[i]
            inputs[i] = gate(x, None if t is None else e[:, t])
        u, v = (mlp(x).to(e.dtype) for mlp, x in zip(self.streams, inputs, strict=True))
        return self.fusion(u, v)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalMLPConfig:
    """A FinalMLP."""

    name: Literal["finalmlp"] = "finalmlp"
    """The model."""
    dim: int = 16
    """Embedding dimension."""
    first: tuple[int, ...] = (512, 256)
    """Sizes of the first stream's layers; the last is its output."""
    second: tuple[int, ...] = (512, 512, 256)
    """Sizes of the second stream's layers; the last is its output."""
    heads: int = 2
    """Pieces of the streams' outputs that the fusion pairs; it divides both."""
    gate: int = 0
    """Hidden size of the gates, one a stream, that weigh its inputs; 0 for no gates."""
    contexts: tuple[str, str] = ("", "")
    """For each stream's gate the categorical feature it depends on, such as the user's id for one
    and the item's for the other; empty for gates that are the same for all samples."""
    dropout: float = 0.0
    """Share of the streams' units dropped in training."""
    batch_norm: bool = False
    """Whether the streams' layers are normalized."""
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=0.01))
    """The embedding tables."""

    def __post_init__(self) -> None:
        for name in ("dim", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}: it must be positive")
        for name in ("first", "second"):
            sizes = getattr(self, name)
            if not sizes or any(size < 1 for size in sizes):
                raise ConfigError(
                    f"model.{name} is {sizes}: one size at least, and all of them positive"
                )
            if sizes[-1] % self.heads:
                raise ConfigError(
                    f"model.heads is {self.heads}: it must divide the last size of model.{name}, "
                    f"{sizes[-1]}"
                )
        if self.gate < 0:
            raise ConfigError(f"model.gate is {self.gate}: 0 for no gates, or positive")
        if any(self.contexts) and not self.gate:
            raise ConfigError(f"model.contexts is {self.contexts}, but model.gate 0: no gates")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}: at least 0 and below 1 is needed")

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> FinalMLP:
        """Return the model for data of this schema, with fresh parameters.

        Raises:
            ConfigError: A context is no categorical feature; lists them.

        """
        for name in self.contexts:
            if name and name not in schema.names:
                raise unknown("categorical feature", name, schema.names)
        one, other = (schema.names.index(name) if name else None for name in self.contexts)
        return FinalMLP(
            len(schema.dense),
            self.tables.build(schema.rows, self.dim, schema.names),
            first=self.first,
            second=self.second,
            heads=self.heads,
            gate=self.gate,
            contexts=(one, other),
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            precision=precision,
        )
