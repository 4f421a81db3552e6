"""What a runtime is: a way to run a trained model, from a file that it prepares.

    TrainedModel ──prepare──> artefact (a file) ──open──> Session ──logits(batch)──> (B, K)

A runtime is a class in a file of this room, and one line in `RUNTIMES`. Its library is imported in
that file alone, and only by `prepare` and `open`.
"""

import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError, MissingExtraError, RunError, unknown
from dlrm.nn.layout import Layout
from dlrm.runtimes.trained import FORMAT, TrainedModel
from dlrm.schema import Schema

RUNTIMES = {
    "eager": "torch_eager:TorchEager",
    "torch": "torch_program:TorchProgram",
    "aoti": "aoti:AOTInductor",
    "onnx": "onnx:ONNXRuntime",
    "openvino": "openvino:OpenVINO",
    "jax": "jax.runtime:JAX",
}
"""Name of a runtime -> its class, in `dlrm.runtimes`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a model is exported and run; a runtime raises a ConfigError at what it cannot express."""

    external: bool = False
    """Whether weights lie beside the artefact instead of in it."""
    threads: int = 0
    """Threads that a session computes with; 0 for as many as torch."""
    openvino_precision: Literal["f32", "bf16", "auto"] = "f32"
    """What OpenVINO computes in; auto leaves it the choice, which is bf16 on some CPUs, and then
    nobody has declared it."""

    @property
    def session_threads(self) -> int:
        """Threads of a session, a number."""
        return self.threads or torch.get_num_threads()


class Session(ABC):
    """An opened artefact: `logits(batch) = run(inputs(batch))`.

    A subclass defines `_inputs`, `run` and `describe`.
    """

    reduced: str | None = None
    """The precision that it computes in and declares, where that is less than float32."""

    def __init__(self, schema: Schema):
        self.schema = schema
        self._layout = Layout.of(schema)

    def inputs(self, batch: Batch) -> Any:
        """Return a batch as `run` takes it, which may be called again with the same.

        Raises:
            ConfigError: Dense features are not (B, N) float32; ids not of T1 features.
            IdError: An id is out of range; names the feature. Or the lists are not whole.

        """
        check(batch, self.schema, self._layout)
        return self._inputs(batch)

    @abstractmethod
    def _inputs(self, batch: Batch) -> Any:
        """Return a batch that is known to be right as `run` takes it."""

    @abstractmethod
    def run(self, inputs: Any) -> NDArray[np.float32]:
        """Return the logits (B, K), or the predictions of a regression."""

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits (B, K) of a batch; errors as of `inputs`."""
        return self.run(self.inputs(batch))

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return `version` of the library, `threads`, `precision`, and what else it can tell."""


class Runtime(ABC):
    """A way to run trained models."""

    name: ClassVar[str]
    title: ClassVar[str]
    """As people call it."""
    suffix: ClassVar[str]
    """How the names of its artefacts end, such as `.onnx`."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs beside torch."""
    extra: ClassVar[str] = ""
    """The extra that installs them."""

    def why_missing(self) -> str | None:
        """Return why it cannot run here, with the line that installs it; None where it can."""
        if lacking := [package for package in self.packages if find_spec(package) is None]:
            return str(MissingExtraError(f"{self.title} ({lacking[0]})", self.extra))
        return None

    def require(self) -> None:
        """Raise a MissingExtraError where it cannot run here."""
        if lacking := [package for package in self.packages if find_spec(package) is None]:
            raise MissingExtraError(f"{self.title} ({lacking[0]})", self.extra)

    @abstractmethod
    def prepare(self, trained: TrainedModel, path: Path, options: Options) -> None:
        """Write the artefact.

        Args:
            trained: The model.
            path: Of the artefact; its folder is there.
            options: How it is exported.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: The runtime cannot express an option or the model; says what to use.

        """

    @abstractmethod
    def open(self, path: Path, options: Options) -> Session:
        """Open what `prepare` wrote.

        Raises:
            MissingExtraError: A package is not installed.
            RunError: The file is no such artefact, or its weights are not those its metadata say.

        """


class Export(Runtime):
    """A runtime whose artefacts run without this project, and say what they are.

    Their metadata are texts: `dlrm.format`, `dlrm.schema` (JSON), `dlrm.model`,
    `dlrm.tables`, `dlrm.weights_sha256` of the trained model's weights, `dlrm.content_sha256` of
    all but the metadata, and `dlrm.max_abs_diff` from this project's own eager path.
    """

    def files(self, path: Path) -> list[Path]:
        """Return the files that an artefact consists of, itself first."""
        return [path]

    @abstractmethod
    def read_metadata(self, path: Path) -> dict[str, str]:
        """Return the metadata of an artefact.

        Raises:
            RunError: It is no such artefact.

        """

    @abstractmethod
    def write_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Replace the metadata of an artefact."""

    @abstractmethod
    def content_sha256(self, path: Path) -> str:
        """Return the hash of all that an artefact is but for its metadata."""

    def schema(self, path: Path) -> Schema:
        """Return the schema that an artefact says it takes.

        Raises:
            RunError: It is none of ours, or of another version.

        """
        return schema_in(self.read_metadata(path), path)

    def check(self, path: Path, trained: TrainedModel | None = None) -> None:
        """Raise a RunError unless an artefact is whole, and made of this model where one is given.

        All of it is read.
        """
        schema, metadata = self.schema(path), self.read_metadata(path)
        content = self.content_sha256(path)
        if content != metadata.get("dlrm.content_sha256"):
            raise RunError(
                f"{path} was altered: its hash is {content[:12]}, its metadata say "
                f"{str(metadata.get('dlrm.content_sha256'))[:12]}; export the run again"
            )
        if trained is None:
            return
        if difference := trained.schema.difference(schema):
            raise RunError(f"{path} is of another schema than the run: {difference}")
        if trained.sha256 != metadata.get("dlrm.weights_sha256"):
            raise RunError(
                f"{path} was made of other weights: their hash is "
                f"{str(metadata.get('dlrm.weights_sha256'))[:12]}, the run's {trained.sha256[:12]}"
            )


def schema_in(metadata: Mapping[str, str], path: Path) -> Schema:
    """Return the schema in the metadata of an artefact; see `Export.schema`."""
    if (version := metadata.get("dlrm.format")) != str(FORMAT):
        was = f"of format {version}" if version else "no artefact of ours"
        raise RunError(f"{path} is {was}, expected format {FORMAT}: export the run again")
    try:
        return Schema.from_dict(json.loads(metadata["dlrm.schema"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} has another schema version ({error}): export again") from None


def metadata_of(trained: TrainedModel) -> dict[str, str]:
    """Return what an artefact of a trained model says of it; see `Export`."""
    return {
        "dlrm.format": str(FORMAT),
        "dlrm.schema": json.dumps(trained.schema.to_dict()),
        "dlrm.model": trained.name,
        "dlrm.tables": trained.tables,
        "dlrm.weights_sha256": trained.sha256,
    }


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let these loggers of libraries say errors alone, and nobody warn, within."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def find(name: str) -> Runtime:
    """Return the runtime of a name.

    Raises:
        ConfigError: There is none; lists the choices.

    """
    if name not in RUNTIMES:
        raise unknown("runtime", name, RUNTIMES)
    module, _, kind = RUNTIMES[name].partition(":")
    return getattr(import_module(f"dlrm.runtimes.{module}"), kind)()


def check(batch: Batch, schema: Schema, layout: Layout) -> None:
    """Raise an error unless a batch is one of a schema; see `Session.inputs`.

    `layout` is that of the schema, for those who check many batches.
    """
    for name, tensor, columns, dtypes in (
        ("dense", batch.dense, len(schema.dense), (torch.float32,)),
        ("ids", batch.ids, len(schema.one_hot_features), (torch.int32, torch.int64)),
    ):
        if tensor.dtype not in dtypes or tensor.shape != (len(batch), columns):
            expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise ConfigError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}, "
                f"expected {expected} ({len(batch)}, {columns})"
            )
    if batch.lists is None and schema.list_features:
        raise IdError(f"the batch has no lists, expected those of {schema.list_features[0].name}")
    layout.check(batch)
