"""The catalogue of models: one file each, `forward(batch) -> logits (B, K)`.

A model is made of the schema of the data (N dense features, T categorical ones, K labels), its
config with the hyperparameters, and `dtype`, the number format of its products (`dlrm.nn.mlp`).
"""

from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import cache
from inspect import signature
from typing import Any, get_args, get_type_hints

import torch
from torch import nn

from dlrm import catalogue
from dlrm.errors import ConfigError
from dlrm.models.dcn import DCNConfig
from dlrm.models.dcnv2 import DCNV2Config
from dlrm.models.deepfm import DeepFMConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.finalmlp import FinalMLPConfig
from dlrm.models.fm import FMConfig
from dlrm.models.lr import LRConfig
from dlrm.models.mf import MFConfig
from dlrm.models.wide_deep import WideDeepConfig
from dlrm.models.xdeepfm import XDeepFMConfig
from dlrm.nn.embedding import materialize
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema

__all__ = [
    "MODELS",
    "DCNConfig",
    "DCNV2Config",
    "DLRMConfig",
    "DeepFMConfig",
    "FMConfig",
    "FinalMLPConfig",
    "LRConfig",
    "MFConfig",
    "ModelConfig",
    "WideDeepConfig",
    "XDeepFMConfig",
    "another",
    "build",
    "find",
]

ModelConfig = (
    DLRMConfig
    | LRConfig
    | FMConfig
    | MFConfig
    | WideDeepConfig
    | DeepFMConfig
    | DCNConfig
    | DCNV2Config
    | XDeepFMConfig
    | FinalMLPConfig
)
"""The config of any model."""

MODELS: dict[str, type[ModelConfig]] = {config().name: config for config in get_args(ModelConfig)}
"""Name of a model -> its config, whose `build(schema, dtype)` returns the model, see `build`."""


def build(
    config: ModelConfig,
    schema: Schema,
    dtype: ComputeDtype = "fp32",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return a model with fresh parameters: `forward(batch) -> logits (B, K)`.

    The config's own `build` returns the model with tables that have no memory yet, so that they may
    be spread over processes before they get any. The first numbers are the same on every device.

    Raises:
        ConfigError: The model cannot be built for these data; says why.

    """
    return materialize(config.build(schema, dtype), device)


def find(name: str) -> type[ModelConfig]:
    """Return the config of a model: of the catalogue, or of one's own as `module:Class`.

    A class of one's own is a dataclass as those of the catalogue are: it has a field `name`, which
    becomes `module:Class`, defaults for all fields, and `build(schema, dtype)`. Or it is the module
    itself, made of the schema and of arguments with defaults, which become the fields.

    Raises:
        ConfigError: There is no such class, or it is neither; lists the choices.

    """
    config: Any = catalogue.find("model", name, MODELS)
    if isinstance(config, type) and issubclass(config, nn.Module):
        config = _config_of(config, name)
    if not _is_config(config):
        raise ConfigError(
            f"model {name} is no config of a model: expected a dataclass with a field `name` and "
            "`build(schema, dtype)`, such as dlrm.models.DCNConfig, or a torch module whose "
            "arguments behind the schema have defaults"
        )
    return config


@cache
def _config_of(module: type[nn.Module], name: str) -> type | None:
    """Return a config whose fields are the arguments of a module; None where one has no default."""
    _, *arguments = signature(module).parameters.values()
    hints = get_type_hints(module.__init__)
    if any(argument.default is argument.empty for argument in arguments):
        return None

    def build(config: Any, schema: Schema, dtype: ComputeDtype = "fp32") -> nn.Module:
        del dtype
        return module(
            schema, **{argument.name: getattr(config, argument.name) for argument in arguments}
        )

    return make_dataclass(
        module.__name__,
        [
            ("name", str, field(default=name)),
            *(
                (arg.name, hints.get(arg.name, type(arg.default)), field(default=arg.default))
                for arg in arguments
            ),
        ],
        namespace={"build": build, "__doc__": module.__doc__},
        frozen=True,
        kw_only=True,
        slots=True,
    )


def another(config: ModelConfig, name: str) -> ModelConfig:
    """Return the config of another model, with the fields that both have kept as they are.

    What DLRM calls its top MLP is the deep part of the others. Tables that are as the one model has
    them by default are as the other has them by default: models start from rows of different size.

    Raises:
        ConfigError: There is no model of that name.

    """
    if name == config.name:
        return config
    other = find(name)
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    if settings.get("tables") == getattr(type(config)(), "tables", None):
        settings.pop("tables", None)
    if "top" in settings or "deep" in settings:
        settings = {"deep": settings.get("top"), "top": settings.get("deep"), **settings}
    if other in MODELS.values():
        del settings["name"]
    else:
        settings["name"] = name
    names = {field.name for field in fields(other)}
    return other(**{key: value for key, value in settings.items() if key in names})


def _is_config(candidate: object) -> bool:
    if not isinstance(candidate, type) or not is_dataclass(candidate):
        return False
    return "name" in {field.name for field in fields(candidate)} and hasattr(candidate, "build")
