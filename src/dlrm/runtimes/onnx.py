"""ONNX: one file that ONNX Runtime, and much else, runs.

Tables that would make it larger than protobuf takes lie beside it, in `FILE.data`.

The translation of bags is this project's own: torch's makes a loop of them. Ids of one list are
added up by ScatterND, whose slices are whole vectors.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.errors import RunError
from dlrm.runtimes.plain import exported, input_arrays, input_names
from dlrm.runtimes.runtime import Export, Options, Session, quiet, schema_in
from dlrm.runtimes.trained import TrainedModel

EMBEDDED_BYTES = 1 << 30
"""Weights of more bytes lie beside the file: protobuf takes 2 GiB."""
OPSET = 20


class ONNXRuntime(Export):
    """ONNX files, run by ONNX Runtime on the CPU."""

    name, title, suffix = "onnx", "ONNX Runtime", ".onnx"
    packages, extra = ("onnx", "onnxscript", "onnxruntime"), "onnx"

    def prepare(self, trained: TrainedModel, path: Path, options: Options) -> None:
        """Write an ONNX file; see `Runtime.prepare`."""
        self.require()
        program = to_onnx(trained)
        size_bytes = sum(tensor.nbytes for tensor in trained.state.values())
        program.save(path, external_data=options.external or size_bytes > EMBEDDED_BYTES)

    def open(self, path: Path, options: Options) -> Session:
        """Open an ONNX file; see `Runtime.open`."""
        self.require()
        return ONNXSession(path, options)

    def files(self, path: Path) -> list[Path]:
        """Return the file, and that with its weights where they lie beside it."""
        beside = path.with_name(f"{path.name}.data")
        return [path, *([beside] if beside.exists() else ())]

    def read_metadata(self, path: Path) -> dict[str, str]:
        """Return the metadata of an ONNX file; see `Export.read_metadata`."""
        return {entry.key: entry.value for entry in _read(path).metadata_props}

    def write_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put metadata into an ONNX file; see `Export.write_metadata`."""
        import onnx

        model = _read(path)
        onnx.helper.set_model_props(model, dict(metadata))
        path.write_bytes(model.SerializeToString())

    def content_sha256(self, path: Path) -> str:
        """Return the hash of an ONNX file without its metadata; see `Export.content_sha256`."""
        model = _read(path)
        del model.metadata_props[:]
        digest = hashlib.sha256(model.SerializeToString(deterministic=True))
        for beside in self.files(path)[1:]:
            with beside.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


class ONNXSession(Session):
    """A session of ONNX Runtime."""

    def __init__(self, path: Path, options: Options):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self.threads = options.session_threads
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise RunError(f"{path} is no ONNX file that ONNX Runtime takes ({error})") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        super().__init__(schema_in(metadata, path))
        self._version = onnxruntime.__version__

    def _inputs(self, batch: Batch) -> dict[str, NDArray[Any]]:
        return input_arrays(batch, self.schema)

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the logits (B, K); see `Session.run`."""
        (logits,) = self._session.run(None, inputs)
        return np.asarray(logits)

    def describe(self) -> dict[str, Any]:
        """Return version, threads and precision."""
        return {"version": self._version, "threads": self.threads, "precision": "f32"}


def to_onnx(trained: TrainedModel) -> Any:
    """Return a trained model as torch's ONNXProgram."""
    program = exported(trained)
    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        return torch.onnx.export(
            program,
            input_names=input_names(trained.schema),
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.index_add.default: _index_add},
        )


def _index_add(self: Any, dim: int, index: Any, source: Any, alpha: float = 1.0) -> Any:
    """Add rows of `source` (L, D) to those of `self` (G, D) that `index` (L,) names."""
    from onnxscript import opset18 as op

    typed: Any = op

    assert (dim, alpha) == (0, 1)
    places = typed.Unsqueeze(index, typed.Constant(value_ints=[1]))
    return typed.ScatterND(self, places, source, reduction="add")


def _read(path: Path) -> Any:
    """Return the model of an ONNX file, without weights that lie beside it."""
    import onnx

    try:
        return onnx.load(path, load_external_data=False)
    except Exception as error:
        raise RunError(f"{path} is no ONNX file ({error})") from None
