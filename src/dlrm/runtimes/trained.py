"""The one description of a trained model: schema, config, and weights by name.

Every runtime is made from it, and nothing else of a run. As a file it is safetensors: the weights
by their names in the model, and a line of metadata with the rest.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrm.errors import RunError
from dlrm.files import replacing, write_tensors
from dlrm.models import ModelConfig
from dlrm.nn.embedding import materialize
from dlrm.nn.precision import ComputeDtype, resolve
from dlrm.nn.quantized import TableDtype, quantize
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.build import untrained
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.draws import Draws
from dlrm.training.ensemble import Ensemble, members, model_name
from dlrm.training.load import load_model

FORMAT = 1
"""Version of the description, in files and in the metadata of artefacts."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model, without its features and its data."""

    schema: Schema
    """What its inputs and its K outputs mean."""
    config: TrainConfig
    """Of the run; `models` are those of its members."""
    dtype: ComputeDtype
    """Format of products in this project's own eager path; exports compute in float32."""
    tables: Literal["trained"] | TableDtype = "trained"
    """What became of the rows of tables after training: nothing, or fewer bits."""
    net: nn.Module = field(repr=False, kw_only=True)
    """`forward(batch) -> logits (B, K)`, or predictions of a regression; in evaluation mode."""

    @classmethod
    def of(cls, run: Run | Path | str, dtype: ComputeDtype | None = "fp32") -> "TrainedModel":
        """Describe the best checkpoint of a run, or those of all members of an ensemble.

        Args:
            run: A run directory, or its path.
            dtype: Format of products; None for the one that the run was trained in.

        Raises:
            RunError: There is no such run, it has no checkpoint yet, or is of an older schema.

        """
        opened = run if isinstance(run, Run) else Run.open(Path(run))
        config = from_dict(opened.config)
        dtype = dtype or resolve(config.precision)
        net = load_model(opened, device=torch.device("cpu"))
        described = cls(opened.schema, config, dtype, net=net)
        return described if resolve(config.precision) == dtype else described.computing(dtype)

    @property
    def models(self) -> tuple[ModelConfig, ...]:
        """The config of each member of an ensemble; of a single model its own."""
        return tuple(member.model for member in members(self.config))

    @property
    def name(self) -> str:
        """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
        return model_name(self.config)

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights by name, such as `top.layers.0.weight`; of an ensemble `members.0.` before.

        A regression has `net.` before all, and the `mean` and `deviation` (K,) of its labels:
        `mean + deviation * logits` is the prediction. Tables of one dimension are one weight,
        stacked in the order of `schema.tables` (`dlrm.nn.embedding`).
        """
        return {name: tensor.detach() for name, tensor in self.net.state_dict().items()}

    @cached_property
    def sha256(self) -> str:
        """Hash of names, types, shapes and bytes of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def computing(self, dtype: ComputeDtype) -> "TrainedModel":
        """Return the same weights with products in another format."""
        net = materialize(_net(self.config, self.schema, dtype))
        if self.tables != "trained":
            net = quantize(net, self.tables)
        net.load_state_dict(self.net.state_dict(), assign=True)
        return replace(self, dtype=dtype, net=net.eval())

    def quantized(self, to: TableDtype) -> "TrainedModel":
        """Return the model with tables of fewer bits; see `dlrm.nn.quantized.quantize`."""
        return replace(self, tables=to, net=quantize(self.net, to).eval())

    def copied(self) -> "TrainedModel":
        """Return the same model, whose layers are others and share these weights."""
        shared: dict[int, Any] = {
            id(tensor): tensor for tensor in (*self.net.parameters(), *self.net.buffers())
        }
        return replace(self, net=copy.deepcopy(self.net, shared))

    def save(self, path: Path) -> None:
        """Write this description as one safetensors file."""
        described = {
            "format": FORMAT,
            "schema": self.schema.to_dict(),
            "config": to_dict(self.config),
            "dtype": self.dtype,
            "tables": self.tables,
            "sha256": self.sha256,
        }
        state = {name: tensor.contiguous() for name, tensor in self.state.items()}
        with replacing(path) as temporary:
            write_tensors(temporary, state, {"dlrm": json.dumps(described)})

    @classmethod
    def load(cls, path: Path) -> "TrainedModel":
        """Open what `save` wrote.

        Raises:
            RunError: It is no such file, of another version, or its weights are not those that its
                hash is of.

        """
        described, state = _read(path)
        schema, config = Schema.from_dict(described["schema"]), from_dict(described["config"])
        net = _net(config, schema, described["dtype"])
        if described["tables"] != "trained":
            net = quantize(materialize(net), described["tables"])
        net.load_state_dict(state, assign=True)
        trained = cls(schema, config, described["dtype"], described["tables"], net=net.eval())
        if trained.sha256 != described["sha256"]:
            raise RunError(
                f"{path} was altered: the hash of its weights is {trained.sha256[:12]}, its "
                f"metadata say {described['sha256'][:12]}; export the run again"
            )
        return trained


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Return the metadata and the weights of a description's file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["dlrm"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if described["format"] != FORMAT:
            raise RunError(
                f"{path} is of format {described['format']}, expected {FORMAT}: export it again"
            )
        return described, state
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} is no trained model of ours ({error})") from None


def _net(config: TrainConfig, schema: Schema, dtype: ComputeDtype) -> nn.Module:
    """Return the model of a run, or of all members, whose tables have no memory yet."""
    with Draws().lent():
        # What they start from is lost at once, and must be missing in no training.
        nets = [untrained(member, schema, dtype) for member in members(config)]
    if config.ensemble == 1:
        return nets[0]
    regression = schema.task == "regression"
    return Ensemble(nets, "logits" if regression else config.ensemble_mean)
