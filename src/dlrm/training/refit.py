"""The settings that validation has chosen, trained on training and validation rows together.

RUN/chosen/    the run that is validated; it says after how many samples its best model stood
RUN            takes as many passes over all rows, and has only test rows left to be measured on
"""

from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from dlrm.data.encoded import Lists, join
from dlrm.data.store import Dataset, Split
from dlrm.parallel.world import World
from dlrm.run import Run
from dlrm.training import checkpoint, ensemble
from dlrm.training.config import TrainConfig

FOLDER = "chosen"


@dataclass(frozen=True, slots=True)
class JoinedDataset(Dataset):
    """A dataset whose validation rows are training rows, too."""

    train: Split

    def split(self, name: str) -> Split:
        """Return a split; that of validation has no rows."""
        if name == "train":
            return self.train
        # No `super()`: the decorator has made another class of this one.
        split = Dataset.split(self, name)
        return _empty(split) if name == "validation" else split


def refit(
    config: TrainConfig, dataset: Dataset, chosen: Run, world: World
) -> tuple[TrainConfig, Dataset]:
    """Return the config and the rows of a run that takes as many passes as another has chosen."""
    train = dataset.split("train")
    whole = _joined(train, dataset.split("validation"))
    count = config.ensemble
    runs = [Run(ensemble.folder(chosen, k)) for k in range(count)] if count > 1 else [chosen]
    best = world.broadcast_object(fmean(map(checkpoint.best_step, runs)))
    steps = max(1, round(best * len(whole) / len(train)))
    epochs = -(-steps // -(-len(whole) // config.loader.batch_size))
    final = replace(config, max_steps=steps, epochs=epochs, eval=replace(config.eval, patience=0))
    return final, JoinedDataset(dataset.path, dataset.schema, dataset.manifest, whole)


def _empty(split: Split) -> Split:
    """Return a split like this one without rows."""
    lists = split.lists
    return replace(
        split,
        dense=split.dense[:0],
        ids=split.ids[:0],
        labels=split.labels[:0],
        lists=None if lists is None else Lists(lists.ids[:0], lists.offsets[:1]),
        weights=None if split.weights is None else split.weights[:0],
        truth=None if split.truth is None else split.truth[:0],
    )


def _joined(one: Split, other: Split) -> Split:
    """Return the rows of two splits of a dataset, in memory."""

    def rows(name: str) -> np.ndarray | None:
        parts = [getattr(split, name) for split in (one, other)]
        return None if parts[0] is None else np.concatenate(parts)

    lists = None if one.lists is None or other.lists is None else join([one.lists, other.lists])
    return replace(
        one,
        dense=np.concatenate([one.dense, other.dense]),
        ids=np.concatenate([one.ids, other.ids]),
        labels=np.concatenate([one.labels, other.labels]),
        lists=lists,
        weights=rows("weights"),
        truth=rows("truth"),
    )
