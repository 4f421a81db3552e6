"""One version of a model that is served: a predictor, and what clients are told of it."""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError, DlrmError, unknown
from dlrm.nn.quantized import TableDtype
from dlrm.runtimes import runtime
from dlrm.runtimes.runtime import Export, Options, Session
from dlrm.runtimes.trained import TrainedModel
from dlrm.runtimes.verify import export
from dlrm.serving.columns import columns
from dlrm.serving.limits import Limits
from dlrm.serving.metrics import Statistics
from dlrm.serving.rows import encode_rows
from dlrm.serving.signature import Signature
from dlrm.training.device import DeviceName
from dlrm.training.predictor import Predictor

_PLATFORM = "dlrm"


@dataclass(frozen=True, kw_only=True, slots=True)
class BackEnd:
    """What runs the models of a server.

    Raises:
        ConfigError: There is no such runtime or format, or one that does not go with another.

    """

    runtime: str = "eager"
    """One of `dlrm.runtimes`; eager is what `dlrm predict` runs."""
    tables: Literal["trained"] | TableDtype = "trained"
    """Format of the rows of embedding tables."""
    device: DeviceName = "auto"
    """Where eager computes."""

    def __post_init__(self) -> None:
        if self.runtime not in runtime.RUNTIMES:
            raise unknown("runtime", self.runtime, runtime.RUNTIMES)
        if self.tables not in (formats := ("trained", *get_args(TableDtype))):
            raise unknown("format of tables", self.tables, formats)
        if self.device == "cuda" and not self.plain:
            raise ConfigError("other runtimes and tables of fewer bits are served on the CPU")

    @property
    def plain(self) -> bool:
        """Whether a run is served as `dlrm predict` scores with it."""
        return self.runtime == "eager" and self.tables == "trained"

    def open(self, run: Path) -> Predictor:
        """Open the best checkpoint of a run; errors as of `Predictor.open`."""
        if self.plain:
            return Predictor.open(run, self.device)
        # Its features are checked and read, too.
        plain = Predictor.open(run, "cpu")
        trained = TrainedModel.of(run)
        if self.tables != "trained":
            trained = trained.quantized(self.tables)
        if self.runtime == "eager":
            return Predictor(trained.net, plain.features, batch_size=plain.batch_size)
        back_end = runtime.find(self.runtime)
        back_end.require()
        with TemporaryDirectory(prefix="dlrm-serve-") as folder:
            artefact = Path(folder) / f"model{back_end.suffix}"
            if isinstance(back_end, Export):
                # Compared with eager first: what answers otherwise is not served.
                export(trained, back_end, artefact, Options())
            else:
                back_end.prepare(trained, artefact, Options())
            session = _SessionModel(back_end.open(artefact, Options()))
        return Predictor(session, plain.features, batch_size=plain.batch_size)


class _SessionModel(nn.Module):
    """A session of a runtime as a predictor takes it."""

    def __init__(self, session: Session):
        super().__init__()
        self._session = session
        self._lock = Lock()

    def forward(self, batch: Batch) -> Tensor:
        # A session serves one thread at a time, and a shadow that is asked itself has two.
        with self._lock:
            return torch.from_numpy(self._session.logits(batch))


@dataclass(frozen=True, eq=False)
class Model:
    """A version of a model."""

    name: str
    version: str
    predictor: Predictor
    back_end: BackEnd
    step: int | None
    """Optimizer steps of the checkpoint; None of an ensemble."""
    statistics: Statistics = field(default_factory=Statistics)
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", Signature(self.predictor.schema))

    @cached_property
    def named(self) -> dict[str, str]:
        """What the response to an inference request says of it."""
        return {"model_name": self.name, "model_version": self.version}

    def warm_up(self) -> None:
        """Score a row that has no value, so that no client waits for what first use makes."""
        predictor = self.predictor
        row = {predictor.features.needed[0]: None}
        # A model that takes no such row says so to who sends it.
        with suppress(DlrmError):
            predictor.logits(predictor.batch(encode_rows([row], predictor)))

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """The columns of its rows; see `dlrm.serving.columns`."""
        return columns(self.predictor.features)

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """Return the metadata of the protocol."""
        return {
            "name": self.name,
            "versions": versions,
            "platform": _PLATFORM,
            "inputs": [tensor.to_dict() for tensor in self.signature.inputs.values()],
            "outputs": [tensor.to_dict() for tensor in self.signature.outputs.values()],
            "parameters": {
                "columns": list(self.predictor.features.needed),
                "labels": list(self.predictor.schema.labels),
                "task": self.predictor.schema.task,
                **({} if self.step is None else {"step": self.step}),
            },
        }

    def config(self, limits: Limits) -> dict[str, Any]:
        """Return the configuration as Triton's extension has it: sizes stand without the rows'."""
        batched = not self.predictor.schema.list_features

        def described(tensors: Any) -> list[dict[str, Any]]:
            return [
                {
                    "name": tensor.name,
                    "data_type": f"TYPE_{tensor.datatype}",
                    "dims": list(tensor.shape[batched:]),
                }
                for tensor in tensors.values()
            ]

        return {
            "name": self.name,
            "platform": _PLATFORM,
            "backend": self.back_end.runtime,
            # Lists share no first dimension with the rows.
            "max_batch_size": limits.rows if batched else 0,
            "version_policy": {"all": {}},
            "input": described(self.signature.inputs),
            "output": described(self.signature.outputs),
            "instance_group": [{"name": self.name, "kind": "KIND_CPU", "count": 1}],
            "dynamic_batching": {
                "preferred_batch_size": [limits.batch],
                "max_queue_delay_microseconds": round(limits.delay_s * 1e6),
            },
        }
