"""`dlrm export`: a trained model as a file that another runtime runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.text import Text
from tyro.conf import arg

from dlrm.errors import ConfigError
from dlrm.nn.quantized import TableDtype
from dlrm.run import Run
from dlrm.runtimes import runtime
from dlrm.runtimes.features_file import write_features
from dlrm.runtimes.runtime import Options
from dlrm.runtimes.trained import TrainedModel
from dlrm.runtimes.verify import Exported
from dlrm.runtimes.verify import export as checked_export
from dlrm.terminal import human_bytes

Target = Literal["onnx", "aoti", "openvino", "torch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """A checked export."""

    run: Path
    to: Target
    exported: Exported
    features: Path | None
    """Folder with what turns raw values into inputs."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.exported.files)

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "run": str(self.run),
            "to": self.to,
            "out": str(self.exported.path),
            "files": [str(file) for file in self.exported.files],
            "size_bytes": self.size_bytes,
            "max_abs_diff": self.exported.max_abs_diff,
            "weights_sha256": self.exported.weights_sha256,
            "features": str(self.features) if self.features else None,
        }

    def __rich__(self) -> Text:
        lines = [
            f"{', '.join(map(str, self.exported.files))}  {human_bytes(self.size_bytes)}",
            f"Checked: {self.exported.max_abs_diff:.1e} at most from PyTorch's probabilities",
        ]
        if self.features:
            lines.append(f"Raw values become inputs by {self.features}")
        return Text("\n".join(lines))


def export(
    run: Annotated[Path | str, tyro.conf.Positional, arg(metavar="RUN")],
    *,
    to: Annotated[Target, arg(metavar="RUNTIME")],
    out: Annotated[Path | str, arg(metavar="FILE")],
    tables: TableDtype | None = None,
    external: bool = False,
    with_features: bool = False,
) -> ExportResult:
    """Write a trained model as a file that another runtime runs, and check that it answers alike.

    Args:
        run: The run directory.
        to: onnx (ONNX Runtime), openvino, aoti (a library that torch loads), or torch (a program of
            torch.export).
        out: The file: .onnx, .xml with its weights in a .bin beside it, or .pt2.
        tables: Bits of the rows of tables, as `dlrm compress` measures them: fp16, bf16, int8, int4
            or int2.
        external: Leave the weights of an ONNX file beside it, in FILE.data, as large ones are in
            any case.
        with_features: Write what turns raw values into inputs too, into the folder FILE.features.

    Raises:
        RunError: The run has no model yet, or is of an older dlrm.
        MissingExtraError: The packages of that runtime are not installed.
        ConfigError: The runtime cannot express the model, or answers otherwise than PyTorch.

    """
    opened, path = Run.open(run), Path(out)
    chosen = runtime.find(to)
    chosen.require()
    if not isinstance(chosen, runtime.Export):
        raise ConfigError(f"{chosen.title} has no files that run without this project")
    trained = TrainedModel.of(opened)
    if tables is not None:
        trained = trained.quantized(tables)
    exported = checked_export(trained, chosen, path, Options(external=external))
    folder = None
    if with_features:
        folder = path.with_name(f"{path.name}.features")
        write_features(opened, folder)
    return ExportResult(run=opened.path, to=to, exported=exported, features=folder)
