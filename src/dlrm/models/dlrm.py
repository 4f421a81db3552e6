"""DLRM, the deep-learning recommendation model.

    x = bottom(dense)                        dense features to a vector
    e = embeddings(batch)                     one vector per categorical feature
    logits = top(interaction(x, e))           dot products of all pairs, by default

With `number_vectors` x is as many vectors as there are dense features, one of each by itself
(`dlrm.nn.numbers`), instead of one of all. With `wide`, a logistic regression adds to the logits.
Without dense features x is a vector that is learnt, the same for all samples: its dot product with
an embedding is a weight of the id, as in logistic regression.

Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", arXiv 1906.00091.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from dlrm.batch import Batch
from dlrm.models.deep import DeepConfig
from dlrm.models.lr import LR
from dlrm.nn.embedding import EmbeddingCollection, Embeddings
from dlrm.nn.interaction import Dot
from dlrm.nn.interaction import interaction as build_interaction
from dlrm.nn.mlp import MLP
from dlrm.nn.numbers import Numbers, NumberVectors
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.ops import cpu
from dlrm.ops import dlrm as compiled
from dlrm.schema import Schema


class DLRM(nn.Module):
    """Bottom MLP, embedding tables, interaction, top MLP.

    `embeddings`, where they are given, are taken instead of those that the config describes.
    """

    def __init__(
        self,
        schema: Schema,
        config: "DLRMConfig",
        dtype: ComputeDtype = "fp32",
        *,
        embeddings: Embeddings | None = None,
    ):
        super().__init__()
        dim, num_dense = config.dim, len(schema.dense)
        self.numbers = Numbers(schema)
        self.embeddings = embeddings or config.tables.build(schema, dim)
        self.vectors = NumberVectors(schema, dim) if config.number_vectors and num_dense else None
        # Without inputs all layers before the last would compute a constant, which the bias of the
        # last is by itself; a ReLU would leave it at 0 for good wherever it starts below.
        self.bottom = None
        if self.vectors is None:
            self.bottom = config.mlp(
                [self.numbers.width, *(config.bottom if num_dense else ()), dim],
                dtype,
                relu_last=num_dense > 0,
            )
        self.interaction = build_interaction(
            config.interaction,
            len(schema.features) + (num_dense - 1 if self.vectors is not None else 0),
            dim,
            self_interaction=config.self_interaction,
            projection=config.projection,
        )
        self.wide = LR(schema, config.tables) if config.wide else None
        self.top = config.mlp([self.interaction.width, *config.top, schema.num_labels], dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        if (inputs := self._inputs(batch)) is not None:
            return compiled.dlrm(compiled.Call(inputs))
        if self.bottom is not None:
            x, others = self.bottom(self.numbers(batch.dense)), None
        else:
            assert self.vectors is not None
            x, others = self.vectors(batch.dense).tensor_split((1,), dim=1)
            x = x.squeeze(1)
        e = self.embeddings(batch)
        e = e if others is None else torch.cat([others, e], dim=1)
        logits = self.top(self.interaction(x, e))
        return logits if self.wide is None else logits + self.wide(batch)

    def without_autograd(self, batch: Batch) -> compiled.Inputs | None:
        """Return what computes logits and gradients of a batch without autograd, else None.

        That is `forward` with the bits of autograd's gradients, where it can be one call and nobody
        else wants to be told of it, and where no parameter has a gradient to which it would add,
        or is in two places, whose gradients would be added.
        """
        if type(self) is not DLRM or _watched(self) or _has_any_global_hook():
            return None
        inputs = self._inputs(batch)
        if inputs is None or not all(map(_plain, (inputs.weight, *inputs.parameters))):
            return None
        if len({*map(id, inputs.parameters)}) < len(inputs.parameters):
            return None
        return inputs

    def _inputs(self, batch: Batch) -> compiled.Inputs | None:
        """Return the inputs of `dlrm.ops.dlrm` where it has all parts of this model, else None.

        It has none of what only some models have, and calls no module that somebody watches.
        """
        # Small batches notice what looking up a module as an attribute takes.
        module = self._modules.get
        numbers, bottom, tables = module("numbers"), module("bottom"), module("embeddings")
        interaction, top = module("interaction"), module("top")
        if (
            not torch.is_grad_enabled()
            or type(tables) is not EmbeddingCollection
            or type(interaction) is not Dot
            or module("wide") is not None
            or type(bottom) is not MLP
            or type(top) is not MLP
            or type(numbers) is not Numbers
            or not (bottom.relu_last and bottom.plain and top.plain)
            or any(map(_watched, (numbers, bottom, tables, interaction, top)))
        ):
            return None
        block = tables.one_hot_block(batch)
        if block is None or tables.kernels() is not cpu:
            return None
        dense = numbers(batch.dense)
        starts, sizes = tables.ranges(block)
        mlps = bottom.parameters_of_layers(), top.parameters_of_layers()
        products = compiled.chosen(dense, block.ids, tables.weight, mlps, bottom.dtype)
        if block.ids.shape[1] != sizes.shape[0] or products is None:
            return None
        return compiled.Inputs(
            dense, block.ids, starts, sizes, tables.weight, *mlps, products,
            interaction.self_interaction, lambda wrong: tables.layout.id_error(block, wrong),
        )  # fmt: skip


def _watched(module: nn.Module) -> bool:
    """Return whether somebody wants to be told when a module is called."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _plain(parameter: Tensor) -> bool:
    """Return whether a gradient can be put where there is none, and nobody wants to be told."""
    return (
        parameter.requires_grad
        and parameter.grad is None
        and not parameter._backward_hooks
        and not parameter._post_accumulate_grad_hooks
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DLRMConfig(DeepConfig):
    """A DLRM; the defaults are the paper's for Criteo Kaggle."""

    name: Literal["dlrm"] = "dlrm"
    bottom: tuple[int, ...] = (512, 256, 64)
    """Hidden sizes of the bottom MLP; a last layer to `dim` follows. Of no meaning without dense
    features, and with `number_vectors`."""
    number_vectors: bool = False
    """Whether each dense feature becomes a vector by itself, as each id does."""
    top: tuple[int, ...] = (512, 256)
    """Hidden sizes of the top MLP; a last layer to the logit follows."""
    interaction: Literal["dot", "cat", "sum", "projection"] = "dot"
    """How dense vector and embeddings meet."""
    self_interaction: bool = False
    """Whether `dot` also pairs each vector with itself."""
    projection: int = 8
    """Combinations of the vectors that `projection` pairs them with, instead of all pairs."""
    wide: bool = False
    """Whether each dense feature and each id also adds to the logits by itself, with a weight."""
    tables: TablesConfig = field(default_factory=TablesConfig)
    """The embedding tables."""

    def __post_init__(self) -> None:
        self.check("dim", "projection", sizes=("bottom", "top"))

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> DLRM:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return DLRM(schema, self, dtype)
