"""The catalogue of models: one file each, `forward(batch) -> logits (B,)`."""

from dlrm.models.dlrm import DLRMConfig
from dlrm.models.lr import LRConfig

__all__ = ["MODELS", "DLRMConfig", "LRConfig", "ModelConfig"]

ModelConfig = DLRMConfig | LRConfig
"""The config of any model."""

MODELS: dict[str, type[ModelConfig]] = {"dlrm": DLRMConfig, "lr": LRConfig}
"""Name of a model -> its config, whose `build(schema)` returns the model."""
