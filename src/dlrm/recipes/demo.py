"""The default run: a small DLRM on the generated click log."""

from dlrm.data.loader import LoaderConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import EvalConfig, TrainConfig


def demo() -> TrainConfig:
    """A small DLRM on the generated click log, beside logistic regression and the known optimum."""
    return TrainConfig(
        data="clicks:1500000",
        model=DLRMConfig(dim=16, bottom=(64, 32), top=(64, 32)),
        # Without warm-up the first steps of Adagrad, each as large as lr, spoil the top MLP.
        optim=OptimConfig(name="rowwise_adagrad", lr=0.12, warmup_steps=300, decay_share=0.5),
        loader=LoaderConfig(batch_size=512),
        eval=EvalConfig(splits=("validation", "test")),
        epochs=1,
        baseline=True,
    )
