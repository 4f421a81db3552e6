"""Whether TorchRec can be imported: its packages fit one version of torch each, and do not say so.

FBGEMM 1.X is built against torch 2.(X+5), and TorchRec 1.X against FBGEMM 1.X. Another pair may end
the process while it is imported, without a word. TorchRec's own metadata asks for FBGEMM's CUDA
build, which brings another torch along, so it is installed without its dependencies.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from dlrm.errors import ConfigError, MissingExtraError

NEEDED = ("tensordict", "torchmetrics", "tqdm", "pyre-extensions")
"""What TorchRec imports, and is not installed with it."""

FBGEMM = ("fbgemm-gpu-cpu", "fbgemm-gpu")
"""Names under which FBGEMM comes: without and with CUDA."""

INSTALL = "pip install --no-deps torchrec==1.8.0"
"""The line that goes with the extra, which cannot say it."""

LATER = (
    r"`torch\.distributed\.\w+` is deprecated",
    r"fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not registered",
)
"""Warnings of TorchRec 1.8 with torch 2.13 in each step; gradients are tested to be right."""


def probe(device: str = "cpu") -> None:
    """Return if TorchRec works here; nothing of it is imported into this process.

    Args:
        device: Kind of the device that tables lie on, `cpu` or `cuda`.

    Raises:
        MissingExtraError: A package is not installed.
        ConfigError: The packages do not fit each other, or the device; says what to install.

    """
    torch, torchrec = _version("torch"), _version("torchrec")
    installed = {name: version for name in FBGEMM if (version := _version(name))}
    if not torchrec or not installed or not all(map(_version, NEEDED)):
        raise MissingExtraError("the engine torchrec", "torchrec", then=INSTALL)
    name, fbgemm = next(iter(installed.items()))
    if device == "cuda" and name == FBGEMM[0]:
        raise ConfigError(
            f"{name} has no kernels for CUDA, and the tables are to lie on a GPU: "
            f"pip uninstall {name} && pip install --no-deps {FBGEMM[1]}=={fbgemm}"
        )
    fits = _fitting(torch or "?")
    if any(".".join(v.split(".")[:2]) != fits for v in (fbgemm, torchrec)):
        raise ConfigError(
            f"{name} {fbgemm} and torchrec {torchrec} do not work with torch {torch}"
            + (
                f", which needs {fits} of both: pip install --no-deps {name}=={fits}.0 "
                f"torchrec=={fits}.0"
                if fits
                else ": FBGEMM 1.X needs torch 2.(X+5)"
            )
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Import FBGEMM without its warnings of each kernel that is not in its build.

    It also writes to the root logger, which puts a handler there that nobody asked for.
    """
    # These come later, once a step, and are nothing to a user.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    for message in LATER:
        warnings.filterwarnings("ignore", message=message)
    handlers = logging.root.handlers[:]
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fitting(torch: str) -> str | None:
    """Return the version of FBGEMM and TorchRec for one of torch, `1.8` for `2.13.0`."""
    numbers = re.match(r"2\.(\d+)", torch)
    return f"1.{int(numbers[1]) - 5}" if numbers and int(numbers[1]) >= 5 else None
