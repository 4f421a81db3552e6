"""Frappe, whether a user used an app in a context: the leaderboard's table Frappe_x1.

Ten categories, in libfm's format: user f0, item f1, daytime f2, weekday f3, isweekend f4, homework
f5, cost f6, weather f7, country f8, city f9. A folder with train.libsvm, valid.libsvm (and, if you
have it, test.libsvm) goes in.
"""

from dlrm.data.features.config import FeaturesConfig
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.models.dcn import DCNConfig
from dlrm.models.dcnv2 import DCNV2Config
from dlrm.models.deepfm import DeepFMConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.wide_deep import WideDeepConfig
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.average import AverageConfig
from dlrm.training.config import EvalConfig, TrainConfig

CROSSES = ("f0*f1", *(f"f1*f{context}" for context in range(2, 10)))
"""User x item, and item x each context."""
_SMALL_START = TablesConfig(init_std=0.01)
_EPOCH_ENDS = 1_000_000


def frappe() -> TrainConfig:
    """DeepFM with what the training rows say of user x item and of item x context.

    What helped, as AUC / log loss on the validation file (one seed unless said; see
    docs/guides/accuracy.md for all of it):

        ids alone (`frappe-ids`, one DeepFM)                            .9854 / .1357
        + target mean and log count of user x item                      .9890 / .0909
        + of item                                                       .9911 / .0863
        + of item x each context                                        .9927 / .0815
        + prior .2, less L2                                             .9930 / .0786
        five folds instead of 20                                        .9924 / .0834

    Why it is so much: a pair of user and item never has both labels in this table, because its
    negatives are apps that the user never used. "Has this user used this app" is a natural
    feature of app recommendation, but here it says more than it would of live data.
    """
    return TrainConfig(
        data="frappe",
        prepare=PrepareConfig(
            features=FeaturesConfig(
                min_count=1,
                log_counts=True,
                target_means=True,
                folds=20,
                prior=0.2,
                crosses=CROSSES,
            )
        ),
        model=DeepFMConfig(
            dim=10, deep=(256, 128), batch_norm=True, dropout=0.2, tables=_SMALL_START
        ),
        optim=OptimConfig(
            name="adam", lr=1e-3, embedding_l2=0.01, embedding_rows="all", decay_share=0.5
        ),
        loader=LoaderConfig(batch_size=4096),
        eval=EvalConfig(every=_EPOCH_ENDS),
        epochs=6,
    )


def frappe_ids() -> TrainConfig:
    """The ids alone, as the leaderboard has them: the mean of DCN-V2, DCN, Wide & Deep and DLRM.

    `--ensemble 1 --model NAME` trains one of them. What helped, as AUC on the validation file:
    batch norm and an L2 of .05 on all rows of all tables (DCN-V2 .972 without, .985 with); the mean
    of the parameters over the last half of the steps (DeepFM .9851 with a falling rate, .9857 with
    the mean, .9864 in 20 epochs in place of 14); FinalMLP with small streams (.9847 to .9862).
    Tables must start small: with rows of +-sqrt(1/rows) those of two to nine rows start 50 times
    larger than user and item, and DLRM reaches .967. It concatenates, because dot products of ten
    ids alone reach .979.
    """
    deep = {"dim": 10, "batch_norm": True, "dropout": 0.2, "tables": _SMALL_START}
    sizes = (256, 128)
    return TrainConfig(
        data="frappe",
        prepare=PrepareConfig(features=FeaturesConfig(min_count=1)),
        model=DCNV2Config(deep=sizes, **deep),
        ensemble=4,
        ensemble_models=(
            DCNConfig(deep=sizes, **deep),
            WideDeepConfig(deep=sizes, **deep),
            DLRMConfig(top=sizes, interaction="cat", **deep),
        ),
        optim=OptimConfig(name="adam", lr=1e-3, embedding_l2=0.05, embedding_rows="all"),
        average=AverageConfig(share=0.5, every=5),
        loader=LoaderConfig(batch_size=4096),
        eval=EvalConfig(every=_EPOCH_ENDS),
        epochs=20,
    )
