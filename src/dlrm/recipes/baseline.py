"""The run that a model has to beat: logistic regression on the same batches."""

from dataclasses import replace

from dlrm.models.lr import LRConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import TrainConfig


def baseline(config: TrainConfig) -> TrainConfig:
    """Return the same run with logistic regression in place of the model.

    Adagrad, because it needs no tuning: rare ids keep large steps.
    """
    return replace(
        config,
        model=LRConfig(),
        optim=OptimConfig(name="adagrad", lr=0.1),
        baseline=False,
        tensorboard=False,
    )
