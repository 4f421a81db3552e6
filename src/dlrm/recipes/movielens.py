"""Ratings of items by users, as MovieLens has them: `user`, `item`, `rating`."""

from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.models.mf import MFConfig
from dlrm.optim.config import OptimConfig
from dlrm.training.config import EvalConfig, TrainConfig


def movielens() -> TrainConfig:
    """A matrix factorization with biases, for a table of users, items and ratings.

    Columns of other names: `--model.user userId --model.item movieId --label stars`. All other
    columns are ignored by the model.

    Chosen on validation rows, a tenth of MovieLens-100K's 80,000 training ratings of the u1 split,
    as RMSE (one seed):

        16 factors, L2 1e-5 to 1e-2 on all rows      .917, .914 (1e-4), .964, 1.05
        32 factors                                   .9142; 64: .9128 to .918, twice the time
        a falling rate over the last half            .914, against .919 at half the rate throughout
        the mean of the parameters instead           .9148
        batches of 128 or 512                        .9135, .920

    Trained on all 80,000 it has an RMSE of about .92 on the 20,000 test ratings.
    """
    return TrainConfig(
        data="ratings.tsv",
        prepare=PrepareConfig(split="random", label=("rating",), task="regression"),
        model=MFConfig(dim=32),
        optim=OptimConfig(
            name="adam", lr=2e-3, embedding_l2=1e-4, embedding_rows="auto", decay_share=0.5
        ),
        loader=LoaderConfig(batch_size=256),
        eval=EvalConfig(metric="rmse"),
        epochs=10,
    )
