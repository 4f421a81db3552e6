"""OpenVINO: a description of the graph, FILE.xml, and its weights beside it, FILE.bin.

By default it computes in what it thinks best, which on some CPUs is bfloat16 and changes the third
digit of a probability. Here it computes in float32 unless it is asked not to.
"""

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.errors import ConfigError, RunError
from dlrm.files import write_bytes
from dlrm.nn.crosses import Crosses
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.runtimes.plain import input_arrays
from dlrm.runtimes.runtime import Export, Options, Session
from dlrm.runtimes.trained import TrainedModel
from dlrm.schema import Schema


class OpenVINO(Export):
    """OpenVINO's own files, made from ONNX, run on the CPU."""

    name, title, suffix = "openvino", "OpenVINO", ".xml"
    packages, extra = ("openvino", "onnx", "onnxscript"), "openvino"

    def prepare(self, trained: TrainedModel, path: Path, options: Options) -> None:
        """Write the graph and its weights; see `Runtime.prepare`."""
        self.require()
        for module in trained.net.modules():
            hashed = isinstance(module, Crosses) and bool(module.hashed.any())
            if hashed or isinstance(module, HashedEmbeddings):
                raise ConfigError(
                    "OpenVINO computes whole numbers in 32 bits, and hashed tables and crosses "
                    "need 64: export to onnx, aoti or torch"
                )
        import openvino

        from dlrm.runtimes.onnx import to_onnx

        with TemporaryDirectory(dir=path.parent) as folder:
            between = Path(folder) / "model.onnx"
            to_onnx(trained).save(between, external_data=True)
            model = openvino.Core().read_model(between)
            openvino.save_model(model, path, compress_to_fp16=False)

    def open(self, path: Path, options: Options) -> Session:
        """Compile the graph for this machine; see `Runtime.open`."""
        self.require()
        return OpenVINOSession(path, self.schema(path), options)

    def files(self, path: Path) -> list[Path]:
        """Return the graph and its weights."""
        return [path, path.with_suffix(".bin")]

    def read_metadata(self, path: Path) -> dict[str, str]:
        """Return the metadata of a graph; see `Export.read_metadata`."""
        ours = _parsed(path).find("rt_info/dlrm")
        if ours is None:
            return {}
        return {f"dlrm.{entry.tag}": entry.get("value", "") for entry in ours}

    def write_metadata(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Put metadata into a graph; see `Export.write_metadata`."""
        root = _without(_parsed(path))
        info = root.find("rt_info")
        info = ET.SubElement(root, "rt_info") if info is None else info
        ours = ET.SubElement(info, "dlrm")
        for key, value in metadata.items():
            ET.SubElement(ours, key.removeprefix("dlrm."), value=value)
        write_bytes(path, b'<?xml version="1.0"?>\n' + ET.tostring(root))

    def content_sha256(self, path: Path) -> str:
        """Return the hash of graph and weights without metadata; see `Export.content_sha256`."""
        root = _without(_parsed(path))
        digest = hashlib.sha256(ET.canonicalize(ET.tostring(root), strip_text=True).encode())
        for beside in self.files(path)[1:]:
            try:
                with beside.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise RunError(f"{beside} cannot be read ({error.strerror})") from None
        return digest.hexdigest()


class OpenVINOSession(Session):
    """A graph that is compiled for this machine."""

    def __init__(self, path: Path, schema: Schema, options: Options):
        super().__init__(schema)
        import openvino

        self.threads = options.session_threads
        self.reduced = "bf16" if options.openvino_precision == "bf16" else None
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }
        if options.openvino_precision != "auto":
            settings["INFERENCE_PRECISION_HINT"] = options.openvino_precision
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise RunError(f"{path} is no graph that OpenVINO takes ({error})") from None
        self._request = compiled.create_infer_request()
        hint = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision: str = hint.to_string() if hasattr(hint, "to_string") else str(hint)
        self._version = openvino.__version__

    def _inputs(self, batch: Batch) -> dict[str, NDArray[Any]]:
        return input_arrays(batch, self.schema)

    def run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the logits (B, K); see `Session.run`."""
        return self._request.infer(inputs, share_inputs=True)[0].copy()

    def describe(self) -> dict[str, Any]:
        """Return version, threads and the precision that it says it computes in."""
        return {"version": self._version, "threads": self.threads, "precision": self.precision}


def _parsed(path: Path) -> ET.Element:
    """Return the graph's XML."""
    try:
        return ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise RunError(f"{path} is no graph of OpenVINO ({error})") from None


def _without(root: ET.Element) -> ET.Element:
    """Remove this project's metadata from a graph, and return it."""
    for info in root.findall("rt_info"):
        for ours in info.findall("dlrm"):
            info.remove(ours)
        if not len(info):
            root.remove(info)
    return root
