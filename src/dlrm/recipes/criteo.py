"""Criteo's two advertising data sets, in the configurations of the paper and of MLPerf."""

from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import EvalConfig, TrainConfig


def criteo_kaggle() -> TrainConfig:
    """The paper's model for Criteo Kaggle: dimension 16, SGD 0.1, batch 128, one epoch.

    The last of seven days is held out, half for validation and half for testing. Give the raw
    train.txt with `--data`.

    Source: Naumov et al., arXiv 1906.00091, section 5.1.
    """
    return TrainConfig(
        data="train.txt",
        prepare=PrepareConfig(split="kaggle"),
        model=DLRMConfig(dim=16, bottom=(512, 256, 64), top=(512, 256)),
        optim=OptimConfig(name="sgd", lr=0.1),
        loader=LoaderConfig(batch_size=128),
        epochs=1,
    )


def criteo_terabyte() -> TrainConfig:
    """The MLPerf model for Criteo Terabyte: dimension 128, tables of at most 40M rows, SGD 1.0.

    The last of the days is held out, half for validation and half for testing. Give the raw
    day_0 ... day_23, separated by commas, with `--data`. The tables alone take some 96 GB of
    memory.

    Source: MLPerf Training v0.7, recommendation; bench/run_and_time.sh of facebookresearch/dlrm.
    """
    return TrainConfig(
        data=",".join(f"day_{day}" for day in range(24)),
        prepare=PrepareConfig(split="days", max_rows_per_table=40_000_000),
        model=DLRMConfig(dim=128, bottom=(512, 256), top=(1024, 1024, 512, 256)),
        optim=OptimConfig(name="sgd", lr=1.0),
        loader=LoaderConfig(batch_size=2048),
        eval=EvalConfig(batch_size=16384),
        epochs=1,
    )
