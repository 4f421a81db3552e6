"""Figure 5 of the DLRM paper: DLRM against DCN on Criteo's data, with SGD and with Adagrad."""

from dataclasses import replace
from typing import Literal

from dlrm.optim.config import OptimConfig
from dlrm.recipes.criteo import criteo_kaggle
from dlrm.training.config import TrainConfig

MODELS = ("dlrm", "dcn")
Name = Literal["sgd", "adagrad"]

OPTIMIZERS: dict[Name, float] = {"sgd": 0.1, "adagrad": 0.01}
"""Optimizer -> the learning rate that others are tried around; the paper names none."""


def figure5() -> TrainConfig:
    """What the four runs share: bottom MLP 512-256-64, top MLP 512-256, dimension 16, one epoch.

    DCN has the same top sizes as its deep part, and its default of six cross layers.

    Source: Naumov et al., arXiv 1906.00091, section 5.1.
    """
    return criteo_kaggle()


def with_optimizer(config: TrainConfig, name: Name) -> TrainConfig:
    """Return the same run with one of the two optimizers."""
    warmup_steps = config.optim.warmup_steps
    return replace(
        config, optim=OptimConfig(name=name, lr=OPTIMIZERS[name], warmup_steps=warmup_steps)
    )
