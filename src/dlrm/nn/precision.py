"""Number formats that the dense part computes in."""

from typing import Literal

import torch

from dlrm.errors import ConfigError, unknown

ComputeDtype = Literal["fp32", "bf16"]

CHOICES = ("auto", "fp32", "bf16")


def resolve(name: str) -> ComputeDtype:
    """Return the precision of that name; `auto` is bf16 where the CPU multiplies it natively.

    Raises:
        ConfigError: There is no such precision, or torch was built without it.

    """
    match name:
        case "fp32":
            return "fp32"
        case "bf16":
            if not torch.backends.mkldnn.is_available():
                raise ConfigError("precision bf16 needs a torch with oneDNN; use fp32")
            return "bf16"
        case "auto":
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
            return "bf16" if native and torch.backends.mkldnn.is_available() else "fp32"
    raise unknown("precision", name, CHOICES)
