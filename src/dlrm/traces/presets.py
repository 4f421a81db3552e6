"""Traffic of production tables as published, in a handful of parameters.

facebookresearch/dlrm_datasets says of a batch of hundreds of production tables which share of the
accesses goes to ids that are accessed once, twice, 3 to 4, 5 to 8 times and so on. Those histograms
are a bump of ids that are accessed some ten to thirty times, a plateau that falls off where ids
become as popular as there are samples, more or fewer ids that come once or are hotter than all
others, and in 2022 a second bump. Nothing is published about order: accesses come in any.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.traces.hybrid import CELLS, Hybrid, PopularityClass, gap_bin

BINS = 17
"""Ids accessed once, twice, 3-4, 5-8 ... up to 32,769 times and more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Locality:
    """A histogram of accesses by how often their id is accessed.

    Bin k holds `bump * exp(-(k - center)^2 / 2 width^2) + plateau / (1 + exp((k - end) / fall))`,
    and the first and last bins what they have beyond that.
    """

    accesses: int
    """Accesses to an average table in a batch."""
    bump: float
    center: float
    width: float
    plateau: float
    end: float
    fall: float
    once: float = 0.0
    """Beyond the formula in the first bin."""
    hottest: float = 0.0
    """Beyond the formula in the last bin."""
    second: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Height, center and width of another bump."""

    def shares(self) -> NDArray[np.float64]:
        """Return the share of the accesses in each bin (BINS,)."""
        k = np.arange(BINS)
        shares = np.zeros(BINS)
        for height, center, width in ((self.bump, self.center, self.width), self.second):
            shares += height * np.exp(-((k - center) ** 2) / (2 * width**2))
        shares += self.plateau / (1 + np.exp((k - self.end) / self.fall))
        shares[0] += self.once
        shares[-1] += self.hottest
        return shares / shares.sum()

    def traffic(self) -> Hybrid:
        """Return the traffic of one table with these accesses.

        A bin that has less than an id is that much hotter in the one below.
        """
        classes, left = [], 0.0
        for k in reversed(range(BINS)):
            wanted = self.shares()[k] * self.accesses + left
            low, high = (1, 1) if k == 0 else (2 ** (k - 1) + 1, 2**k)
            if k == BINS - 1:
                high = 2 * low
            # As many ids at each doubling of a count within the bin.
            mean = (high - low) / np.log(high / low) if high > low else low
            ids = int(wanted / mean)
            if not ids:
                left = wanted
                continue
            counts = np.rint(low * (high / low) ** ((np.arange(ids) + 0.5) / ids)).astype(np.int64)
            left = wanted - counts.sum()
            classes.append(_class(counts, self.accesses))
        return Hybrid(sum(int(k.counts.prod(axis=1).sum()) for k in classes), classes, "shuffled")


PRESETS = {
    "production-2021": Locality(
        accesses=1_036_000, bump=0.0723, center=4.094, width=1.264,
        plateau=0.0492, end=14.76, fall=0.998, once=0.0193, hottest=0.008,
    ),
    "production-2022": Locality(
        accesses=1_783_000, bump=0.1059, center=5.02, width=1.94,
        plateau=0.0099, end=15.75, fall=2.58, once=0.0134, hottest=0.068,
        second=(0.0571, 11.41, 1.81),
    ),
}  # fmt: skip
"""Name of a preset -> its histogram, by year of publication."""


def _class(counts: NDArray[np.int64], accesses: int) -> PopularityClass:
    """Return ids with these counts that are accessed at any time."""
    mean = accesses / counts.mean()
    gap = max(1, round(mean))
    return PopularityClass(
        counts=np.stack(np.unique(counts, return_counts=True), axis=1),
        spans=np.array([[0, CELLS - 1, len(counts)]]),
        bounds=np.array([[0, accesses - 1], [0, accesses - 1]]),
        gaps=np.array([[gap_bin(gap), 1, gap, 0]]),
    )
