"""The run that a model has to beat: logistic regression on the same batches."""

from dataclasses import replace

from dlrm.models.lr import LRConfig
from dlrm.training.config import TrainConfig


def baseline(config: TrainConfig) -> TrainConfig:
    """Return the same run with logistic regression in place of the model.

    Adagrad, because it needs little tuning: rare ids keep large steps. The rate is the best of
    .01, .03 and .1 on the validation rows of the generated log.
    """
    return replace(
        config,
        model=LRConfig(),
        optim=replace(config.optim, name="adagrad", lr=0.03, warmup_steps=0),
        baseline=False,
        tensorboard=False,
    )
