"""The catalogue of models: one file each, `forward(batch) -> logits (B,)`."""

from dataclasses import fields

from dlrm.errors import unknown
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.lr import LRConfig

__all__ = ["MODELS", "DLRMConfig", "LRConfig", "ModelConfig", "another"]

ModelConfig = DLRMConfig | LRConfig
"""The config of any model."""

MODELS: dict[str, type[ModelConfig]] = {"dlrm": DLRMConfig, "lr": LRConfig}
"""Name of a model -> its config, whose `build(schema)` returns the model."""


def another(config: ModelConfig, name: str) -> ModelConfig:
    """Return the config of another model, with the fields that both have kept as they are.

    What DLRM calls its top MLP is the deep part of the others.

    Raises:
        ConfigError: There is no model of that name.

    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    if name == config.name:
        return config
    kept = {field.name: getattr(config, field.name) for field in fields(config)}
    if "top" in kept or "deep" in kept:
        kept = {"deep": kept.get("top"), "top": kept.get("deep"), **kept}
    wanted = {field.name for field in fields(MODELS[name])} - {"name"}
    return MODELS[name](**{key: value for key, value in kept.items() if key in wanted})
