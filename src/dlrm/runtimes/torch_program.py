"""A program of torch.export, which torch alone loads; and the archive that it is.

AOTInductor writes such an archive too, a zip of texts and bytes. In it this project's metadata are
`extra/dlrm.json`.
"""

import hashlib
import json
import shutil
import zipfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrm.batch import Batch
from dlrm.errors import ConfigError, RunError
from dlrm.files import replacing
from dlrm.runtimes.plain import exported, input_tensors
from dlrm.runtimes.runtime import Export, Options, Session, quiet
from dlrm.runtimes.trained import TrainedModel
from dlrm.schema import Schema

METADATA = "extra/dlrm.json"
"""Where an archive has the metadata, below its one folder."""


class Archive(Export):
    """Artefacts that are a `.pt2` archive of torch."""

    suffix = ".pt2"

    def prepare(self, trained: TrainedModel, path: Path, options: Options) -> None:
        """Write the archive; see `Runtime.prepare`."""
        if options.external:
            raise ConfigError(
                f"{self.title} keeps its weights in the archive, so --external has no meaning for "
                "it: export to onnx or openvino"
            )
        self.write(trained, path)

    @abstractmethod
    def write(self, trained: TrainedModel, path: Path) -> None:
        """Write the archive, without metadata."""

    def read_metadata(self, path: Path) -> dict[str, str]:
        """Return the metadata of an archive; see `Export.read_metadata`."""
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith(METADATA):
                        return json.loads(archive.read(name))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise RunError(f"{path} is no archive of torch ({error})") from None
        return {}

    def write_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Replace the metadata of an archive; see `Export.write_metadata`."""
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(path) as old,
            zipfile.ZipFile(temporary, "w") as new,
        ):
            kept = [entry for entry in old.infolist() if not entry.filename.endswith(METADATA)]
            for entry in kept:
                target = new.open(entry.filename, "w", force_zip64=True)
                with old.open(entry) as source, target:
                    shutil.copyfileobj(source, target, 1 << 20)
            folder = kept[0].filename.partition("/")[0]
            new.writestr(f"{folder}/{METADATA}", json.dumps(dict(metadata)))

    def content_sha256(self, path: Path) -> str:
        """Return the hash of an archive without its metadata; see `Export.content_sha256`."""
        digest = hashlib.sha256()
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in sorted(archive.infolist(), key=lambda entry: entry.filename):
                    if not entry.filename.endswith(METADATA):
                        digest.update(entry.filename.encode())
                        with archive.open(entry) as stream:
                            while piece := stream.read(1 << 20):
                                digest.update(piece)
        except (OSError, zipfile.BadZipFile) as error:
            raise RunError(f"{path} was altered: {error}; export the run again") from None
        return digest.hexdigest()


class TorchProgram(Archive):
    """A program of torch.export, which any torch runs, operation by operation."""

    name, title = "torch", "torch.export"

    def write(self, trained: TrainedModel, path: Path) -> None:
        """Write the program; see `Archive.write`."""
        program = exported(trained)
        # They would be pickled: without them an archive is JSON and bytes.
        program.example_inputs = None
        with quiet():
            torch.export.save(program, path)

    def open(self, path: Path, options: Options) -> Session:
        """Open the program; see `Runtime.open`."""
        schema = self.schema(path)
        try:
            with quiet():
                program = torch.export.load(path).module()
        except RuntimeError as error:
            raise RunError(f"{path} is no program of torch.export ({error})") from None
        return TensorSession(schema, lambda tensors: program(*tensors))


def is_compiled(path: Path) -> bool:
    """Return whether an archive has a compiled library in it, as AOTInductor's have."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/aotinductor/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is no archive of torch ({error})") from None


class TensorSession(Session):
    """A function of tensors in this process."""

    def __init__(self, schema: Schema, function: Callable[[list[Tensor]], Tensor]):
        super().__init__(schema)
        self._function = function

    def _inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return input_tensors(batch, self.schema)

    def run(self, inputs: tuple[Tensor, ...]) -> NDArray[np.float32]:
        """Return the logits (B, K); see `Session.run`."""
        with torch.inference_mode():
            return self._function(list(inputs)).numpy()

    def describe(self) -> dict[str, Any]:
        """Return version, threads and precision."""
        threads = torch.get_num_threads()
        return {"version": torch.__version__, "threads": threads, "precision": "fp32"}
