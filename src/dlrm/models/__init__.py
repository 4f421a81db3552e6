"""The catalogue of models: one file each, `forward(batch) -> logits (B,)`."""

from dlrm.models.dlrm import DLRMConfig

MODELS = {"dlrm": DLRMConfig}
"""Name of a model -> its config, whose `build(schema)` returns the model."""
