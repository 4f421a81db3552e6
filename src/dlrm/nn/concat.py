"""Embeddings made of parts, each of which serves some of the features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlrm.nn.embedding import Embeddings, bags_of


class ConcatEmbeddings(Embeddings):
    """One object in front of several: large tables compressed and small ones plain, for instance.

    Each part serves its own features and knows nothing of the others.

    Args:
        parts: The features that each part serves, in ascending order, and the part. Together they
            serve each of the T features once, all in vectors of D numbers.

    """

    def __init__(self, parts: Sequence[tuple[Sequence[int], Embeddings]]):
        order = [feature for features, _ in parts for feature in features]
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"features {order}: expected each of 0 to T - 1 once")
        rows = [n for _, part in parts for n in part.rows]
        names = [name for _, part in parts for name in part.names]
        place = sorted(range(len(order)), key=order.__getitem__)
        super().__init__([rows[i] for i in place], parts[0][1].dim, [names[i] for i in place])
        self.parts = nn.ModuleList(part for _, part in parts)
        self.features = tuple(tuple(features) for features, _ in parts)
        for number, features in enumerate(self.features):
            self.register_buffer(f"of_{number}", torch.tensor(features), persistent=False)
        self.register_buffer("place", torch.tensor(place), persistent=False)

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up each feature in its part; see `Embeddings.forward`."""
        # Checked here, where the features stand in their order and offsets are still whole.
        ids = self.rows_of(ids, offsets)
        outputs = [
            part(*select(ids, offsets, self.get_buffer(f"of_{number}"), len(self.rows)))
            for number, part in enumerate(self.parts)
        ]
        return torch.cat(outputs, dim=1).index_select(1, self.get_buffer("place"))

    def start_at_zero(self) -> None:
        """Make every vector 0; see `Embeddings.start_at_zero`."""
        for part in self.typed_parts():
            part.start_at_zero()

    def typed_parts(self) -> list[Embeddings]:
        """Return the parts, typed."""
        return [part for part in self.parts if isinstance(part, Embeddings)]


def select(
    ids: Tensor, offsets: Tensor | None, features: Tensor, count: int
) -> tuple[Tensor, Tensor | None]:
    """Return ids and offsets of some features only.

    Args:
        ids: (B, T) when one-hot, else (L,).
        offsets: None when one-hot, else (B*T + 1,).
        features: (S,) int64, ascending.
        count: T.

    """
    if offsets is None:
        return ids.index_select(1, features), None
    lengths = offsets.diff().view(-1, count).index_select(1, features).flatten()
    wanted = torch.zeros(count, dtype=torch.bool, device=ids.device).index_fill_(0, features, True)
    chosen = ids[wanted[bags_of(offsets, ids.shape[0]) % count]]
    return chosen, torch.cat([offsets[:1], lengths.cumsum(0)])
