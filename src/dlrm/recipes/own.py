"""The recipe for a table of one's own: what `dlrm train FILE --label COLUMN` does."""

from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import EvalConfig, TrainConfig


def own() -> TrainConfig:
    """A small DLRM that stops by itself, for tables from thousands of rows to many millions."""
    return TrainConfig(
        data="train.csv",
        prepare=PrepareConfig(split="random"),
        model=DLRMConfig(
            dim=16, bottom=(64, 32), top=(128, 64), tables=TablesConfig(init_std=0.01)
        ),
        optim=OptimConfig(name="adam", lr=1e-3, embedding_l2=1e-5),
        loader=LoaderConfig(batch_size=256),
        eval=EvalConfig(metric="log_loss", patience=10),
        epochs=20,
        baseline=True,
    )
