"""Amazon Employee Access: is an employee granted a resource? Nine columns of codes, 26,215 rows."""

from dlrm.data.features.config import FeaturesConfig
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.models.wide_deep import WideDeepConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import EvalConfig, TrainConfig


def amazon() -> TrainConfig:
    """The mean of five Wide & Deep models over pairs and triples of the columns, on all rows.

    For each column, pair and triple the deep part is told how often the training rows have the
    value, and what share of them was granted, out of fold; the wide part has a weight for the value
    itself. No row is held back, because rows are worth more than early stopping: with a tenth more
    of them log loss falls by about .004. To measure, hold rows back:
    `--prepare.fractions 0.8 0.2 0`.

    What helped, as log loss of five-fold cross-validation on 80% of the rows (one or two seeds,
    which differ by .0007; CatBoost's defaults on the same folds: .1422):

        logistic regression on columns, pairs and triples         .1479
        an MLP on counts and means of columns and pairs           .1444 to .1459
        scores in place of means                                  .1439 to .1452
        little dropout, weight decay and a falling rate           .1433
        + triples                                                 .1420
        + the weights of the wide part                            .1416
        mean of three                                             .1398 on other folds

    No gain: embeddings in the deep part (+.001), ordered means (+.001), rare values left out.
    """
    return TrainConfig(
        data="train.csv.gz",
        prepare=PrepareConfig(
            split="random",
            fractions=(1.0, 0.0, 0.0),
            label=("ACTION",),
            features=FeaturesConfig(
                min_count=1,
                log_counts=True,
                target_means=True,
                target_scores=True,
                folds=30,
                prior=1.0,
                crosses=("pairs", "triples"),
            ),
        ),
        model=WideDeepConfig(dim=0, deep=(128, 64), batch_norm=True, dropout=0.15),
        ensemble=5,
        optim=OptimConfig(
            name="adam",
            lr=3e-3,
            decay_share=0.5,
            weight_decay=3e-3,
            embedding_l2=1e-4,
            embedding_rows="all",
        ),
        loader=LoaderConfig(batch_size=512),
        eval=EvalConfig(every=1_000_000, metric="log_loss"),
        epochs=8,
    )
