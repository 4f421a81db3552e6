"""Embeddings made of parts, each of which serves some of the features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged
from dlrm.nn.embedding import Embeddings
from dlrm.nn.layout import Layout


class ConcatEmbeddings(Embeddings):
    """One object in front of several: large tables compressed and small ones plain, for instance.

    Each part serves its own features and knows nothing of the others.

    Together the parts serve each feature of the layout once, all in vectors of D numbers.
    """

    def __init__(self, layout: Layout, parts: Sequence[Embeddings]):
        served = [name for part in parts for name in part.names]
        names = [feature.name for feature in layout.features]
        if sorted(served) != sorted(names):
            raise ValueError(f"the parts serve {served}, expected each of {names} once")
        super().__init__(layout, parts[0].dim)
        self.parts = nn.ModuleList(parts)
        self._register("place", [] if served == names else [served.index(name) for name in names])

    def forward(self, batch: Batch) -> Tensor:
        """Look up each feature in its part; see `Embeddings.forward`."""
        vectors = torch.cat([part(batch) for part in self.typed_parts()], dim=1)
        place = self._registered("place")
        return vectors.index_select(1, place) if len(place) else vectors

    def sequence(self, batch: Batch, name: str) -> Jagged:
        """Look up a list feature in its part; see `Embeddings.sequence`."""
        for part in self.typed_parts():
            if name in part.names:
                return part.sequence(batch, name)
        return super().sequence(batch, name)

    def prefetch(self, batch: Batch) -> None:
        """Send ids ahead; see `Embeddings.prefetch`."""
        for part in self.typed_parts():
            part.prefetch(batch)

    def start_at_zero(self) -> None:
        """Make every vector 0; see `Embeddings.start_at_zero`."""
        for part in self.typed_parts():
            part.start_at_zero()

    def typed_parts(self) -> list[Embeddings]:
        """Return the parts, typed."""
        return [part for part in self.parts if isinstance(part, Embeddings)]
