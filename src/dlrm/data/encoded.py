"""Samples as arrays: what features make of raw rows, and what a dataset keeps of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.lists import Lists


@dataclass(frozen=True, slots=True)
class Encoded:
    """n samples, with N dense features, T1 one-hot and F list features, and K labels."""

    dense: NDArray[np.float32]
    """(n, N)"""
    ids: NDArray[np.int32]
    """(n, T1), of the features with one id a sample"""
    labels: NDArray[Any] | None = None
    """(n, K), 0 or 1 for classification, any numbers for regression; None where nothing is known"""
    lists: Lists | None = None
    """Ids (L,) and offsets (n*F + 1,) of bags and sequences; None where there are none"""
    weights: NDArray[np.float32] | None = None
    """(n,) how much each sample counts; None for 1 each"""
    truth: NDArray[np.float32] | None = None
    """(n,) the probability that each label was drawn with; None where nobody knows"""

    def __len__(self) -> int:
        return self.dense.shape[0]
