"""Small trained models of the catalogue, whose parameters are all drawn."""

from dataclasses import fields, replace

import torch
from torch import nn

from dlrm.models import MODELS, ModelConfig, build
from dlrm.models.standardized import Standardized
from dlrm.nn.tables import TablesConfig
from dlrm.runtimes.trained import TrainedModel
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig

SMALL = {"dim": 4, "bottom": (8,), "top": (8,), "deep": (8, 6), "first": (8,), "second": (8,)}


def trained(name: str, schema: Schema, **options) -> TrainedModel:
    """A small model, as if it had been trained."""
    default: ModelConfig = MODELS[name]()
    names = {field.name for field in fields(default)}
    small = {key: value for key, value in SMALL.items() if key in names}
    options.setdefault("tables", TablesConfig())
    config = replace(default, **small | options)
    torch.manual_seed(0)
    net = build(config, schema)
    if schema.task == "regression":
        net = Standardized(net, schema.num_labels)
    return TrainedModel(schema, TrainConfig(model=config), "fp32", net=drawn(net))


@torch.no_grad()
def drawn(model: nn.Module) -> nn.Module:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype == torch.float32:
            values = torch.randn_like(tensor) * 0.15
            tensor.copy_(1 + values.abs() if name.endswith("running_var") else values)
    return model.eval()
