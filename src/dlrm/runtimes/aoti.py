"""AOTInductor: a program of torch compiled to a library, which torch loads without a compiler.

Compiling takes a C++ compiler and up to a minute; the library is for the processor of the machine
that compiled it. Loading an archive runs code in it, as opening any program does.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from dlrm.errors import RunError
from dlrm.runtimes.plain import exported
from dlrm.runtimes.runtime import Options, Session, quiet
from dlrm.runtimes.torch_program import Archive, TensorSession
from dlrm.runtimes.trained import TrainedModel

_SETTINGS: dict[str, Any] = {
    # Threads are those of the process that runs it, not of the one that compiled it.
    "cpp.dynamic_threads": True,
}


class AOTInductor(Archive):
    """Compiled archives, run in this process."""

    name, title = "aoti", "AOTInductor"

    def write(self, trained: TrainedModel, path: Path) -> None:
        """Compile the program; see `Archive.write`."""
        from torch._inductor import aoti_compile_and_package

        with quiet("torch._inductor"):
            aoti_compile_and_package(
                exported(trained), package_path=str(path), inductor_configs=_SETTINGS
            )

    def open(self, path: Path, options: Options) -> Session:
        """Load the library; see `Runtime.open`."""
        from torch._inductor import aoti_load_package

        schema = self.schema(path)
        try:
            loader: Any = aoti_load_package(str(path)).loader
        except RuntimeError as error:
            raise RunError(f"{path} is no package of AOTInductor ({error})") from None

        def run(tensors: list[Tensor]) -> Tensor:
            # As a call of the package does it, without looking for nested inputs each time.
            return loader.boxed_run(tensors)[0]

        return TensorSession(schema, run)
