"""FinalMLP: two MLPs over the same inputs, fused by a bilinear form.

    x = [dense, e_1, ..., e_T]
    u = mlp_1(x * g_1),  v = mlp_2(x * g_2)        gates g, see `dlrm.nn.fusion`; without them 1
    logits = b + w_1 . u + w_2 . v + sum over heads k of u_k^T W_k v_k

Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023,
arXiv 2304.00902.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError, unknown
from dlrm.models.deep import DeepConfig
from dlrm.nn.fusion import BilinearFusion, Gate
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema


class FinalMLP(nn.Module):
    """Two streams, each with a gate of its own if there are gates.

    Raises:
        ConfigError: A context is no categorical feature; lists them.

    """

    def __init__(self, schema: Schema, config: "FinalMLPConfig", dtype: ComputeDtype = "fp32"):
        super().__init__()
        names = schema.feature_names
        for name in config.contexts:
            if name and name not in names:
                raise unknown("categorical feature", name, names)
        self.numbers = Numbers(schema)
        width = self.numbers.width + len(names) * config.dim
        self.embeddings = config.tables.build(schema, config.dim)
        self.contexts = [names.index(name) if name else None for name in config.contexts]
        """Feature whose embedding the gate of each stream sees; None for a learnt context."""
        self.gates = nn.ModuleList(
            Gate(width, config.dim, config.gate, given=context is not None, dtype=dtype)
            for context in self.contexts
            if config.gate
        )
        self.streams = nn.ModuleList(
            config.mlp([width, *sizes], dtype, relu_last=True)
            for sizes in (config.first, config.second)
        )
        self.fusion = BilinearFusion(
            config.first[-1], config.second[-1], config.heads, schema.num_labels
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        e = self.embeddings(batch)
        x = torch.cat([self.numbers(batch.dense), e.flatten(1)], dim=1)
        inputs = [x, x]
        for i, gate in enumerate(self.gates):
            t = self.contexts[i]
            inputs[i] = gate(x, None if t is None else e[:, t])
        u, v = (mlp(x).to(e.dtype) for mlp, x in zip(self.streams, inputs, strict=True))
        return self.fusion(u, v)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalMLPConfig(DeepConfig):
    """A FinalMLP."""

    name: Literal["finalmlp"] = "finalmlp"
    first: tuple[int, ...] = (512, 256)
    """Sizes of the first stream's layers; the last is its output."""
    second: tuple[int, ...] = (512, 512, 256)
    """Sizes of the second stream's layers; the last is its output."""
    heads: int = 2
    """Pieces of the streams' outputs that the fusion pairs; it divides both."""
    gate: int = 0
    """Hidden size of the gates, one a stream, that weigh its inputs; 0 for no gates."""
    contexts: tuple[str, str] = ("", "")
    """Categorical feature that each stream's gate depends on, such as the user's id for one and the
    item's for the other; empty for gates that are the same for all samples."""

    def __post_init__(self) -> None:
        self.check("dim", "heads", sizes=())
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

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> FinalMLP:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return FinalMLP(schema, self, dtype)
