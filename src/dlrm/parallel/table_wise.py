"""Whole tables, or columns of them, each kept by one process: the butterfly of the paper."""

import torch
from torch import Tensor

from dlrm.nn.embedding import Block, Layout
from dlrm.parallel.exchange import Wait
from dlrm.parallel.unit import Unit, ends


class TableWise(Unit):
    """Tables with all of their rows on one process, or equal parts of their columns on several.

    A lane is a feature and a shard of its table. Features of a group have S lanes, of which S_r go
    to process r; what goes there is ordered by lane and sample: (S_r, b) ids, and (S_r, b, width)
    numbers come back. A feature has one lane for each shard of its table.
    """

    def _arrange(self, layout: Layout) -> None:
        self.counts: list[list[int]] = []
        """Lanes of each group, by process"""
        self.in_order: list[bool] = []
        """Whether lanes of each group are in the order of features and columns"""
        for group in range(len(layout.groups)):
            tables = layout.table_indices(group)
            lanes = [
                (f, shard)
                for theirs in self.by_rank
                for shard in theirs
                for f, table in enumerate(tables)
                if table == shard.table
            ]
            ranks = [shard.rank for _, shard in lanes]
            self.counts.append([ranks.count(rank) for rank in range(self.exchange.size)])
            keys = [(f, shard.first_column) for f, shard in lanes]
            order = sorted(range(len(keys)), key=keys.__getitem__)
            self.in_order.append(order == list(range(len(keys))))
            self._register(f"lanes_{group}", [f for f, _ in lanes])
            self._register(f"starts_{group}", [self.place[shard] for _, shard in lanes])
            self._register(f"columns_{group}", [shard.first_column for _, shard in lanes])
            self._register(f"order_{group}", order)

    def begin(self, block: Block) -> Wait:
        """Send ids to where their rows are; see `Unit.begin`."""
        group = block.group
        if block.offsets is None:
            local_size = block.ids.shape[0]
            rows = block.ids.t().index_select(0, self._registered(f"lanes_{group}"))
            rows = rows + self._registered(f"starts_{group}")[:, None]
            give, take = self._lists(group, local_size)
            vectors = self.store.lookup(self._send(rows.flatten(), give, take))
        else:
            _, _, lengths, rows, local_size = self._by_lane(block)
            came, _, _, arrived = self._send_lists(group, local_size, lengths, rows)
            vectors = self.store.pooled_rows(arrived, ends(came))
            give, take = self._lists(group, local_size)
        end = self._return(vectors, take, give)
        lanes, features = sum(self.counts[group]), len(self.served[group])

        def in_order() -> Tensor:
            came = end().view(lanes, local_size, self.width)
            if not self.in_order[group]:
                came = came.index_select(0, self._registered(f"order_{group}"))
            # A feature's lanes follow one another by columns.
            return came.transpose(0, 1).reshape(local_size, features, self.dim)

        return in_order

    def vectors(self, block: Block) -> Tensor:
        """Return rows one by one; see `Unit.vectors`."""
        items, lanes, lengths, rows, local_size = self._by_lane(block)
        _, taken, given, arrived = self._send_lists(block.group, local_size, lengths, rows)
        vectors = self._return(self.store.lookup(arrived), taken, given)()
        whole = vectors.new_zeros(block.ids.shape[0], self.dim)
        if self.width == self.dim:
            return whole.index_add(0, items, vectors)
        numbers = items * self.dim + self._registered(f"columns_{block.group}")[lanes]
        numbers = numbers[:, None] + torch.arange(self.width, device=numbers.device)
        flat = whole.flatten().index_add(0, numbers.flatten(), vectors.flatten())
        return flat.view_as(whole)

    @property
    def has_columns(self) -> bool:
        """Whether rows have other columns elsewhere."""
        return self.width < self.dim

    def mean_squares(self, rows: Tensor, grad: Tensor) -> Tensor:
        """Return the mean of squares (U,) over whole rows, of which columns are elsewhere.

        All processes call this together, see `dlrm.optim.SparseOptimizer`. Rows (U,) of this
        process' weight rise, each once, and are the same ids of a table as all processes have that
        keep columns of it; their gradients (U, width) are of the columns here.
        """
        squares = grad.square().sum(dim=1)
        bounds = torch.tensor([[place, place + shard.rows] for shard, place in self.placed_shards])
        bounds = torch.searchsorted(rows, bounds.to(rows.device)).tolist()
        mine = {s.table: slice(*b) for s, b in zip(self.mine, bounds, strict=True)}
        # With every process that has columns of the same tables, in the order of tables.
        shared = [[mine[s.table] for s in theirs if s.table in mine] for theirs in self.by_rank]
        sizes = [sum(part.stop - part.start for part in parts) for parts in shared]
        given = torch.cat([squares[part] for parts in shared for part in parts] or [squares[:0]])
        came = self.exchange.all_to_all(given, sizes, sizes)().split(sizes)
        total = torch.zeros_like(squares)
        # Rank by rank, its own among them: the same sum everywhere.
        for parts, theirs in zip(shared, came, strict=True):
            at = 0
            for part in parts:
                total[part] += theirs[at : at + part.stop - part.start]
                at += part.stop - part.start
        return total / self.dim

    def _by_lane(self, block: Block) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Put ids in the order of lanes and samples.

        Returns of each id in that order its place (M,) among all ids and its lane (M,), the length
        of each list (S * b,), rows (M,) in weights, and the number of samples b.
        """
        assert block.offsets is not None
        offsets, count = block.offsets, self.group_sizes[block.group]
        features = self._registered(f"lanes_{block.group}")
        local_size = (offsets.shape[0] - 1) // count
        samples = torch.arange(local_size, device=offsets.device) * count
        lists = (features[:, None] + samples).flatten()
        lengths = offsets.diff().index_select(0, lists)
        places = ends(lengths)
        total = int(places[-1])
        bags = torch.arange(len(lists), device=offsets.device)
        bags = bags.repeat_interleave(lengths, output_size=total)
        within = torch.arange(total, device=offsets.device) - places[bags]
        items = offsets.index_select(0, lists)[bags] + within
        lanes = torch.div(bags, max(local_size, 1), rounding_mode="floor")
        rows = block.ids[items] + self._registered(f"starts_{block.group}")[lanes]
        return items, lanes, lengths, rows, local_size

    def _send_lists(
        self, group: int, local_size: int, lengths: Tensor, rows: Tensor
    ) -> tuple[Tensor, list[int], list[int], Tensor]:
        """Send lists to where their rows are.

        Returns the lengths of the lists that have come, how many ids came from each process, how
        many went to each, and the rows that have come.
        """
        give, take = self._lists(group, local_size)
        came = self._send(lengths, give, take)
        given = [int(part.sum()) for part in lengths.split(give)]
        taken = [int(part.sum()) for part in came.split(take)]
        return came, taken, given, self._send(rows, given, taken)

    def _lists(self, group: int, local_size: int) -> tuple[list[int], list[int]]:
        """Return how many lists, or ids, go to each process and come from each."""
        counts, split = self.counts[group], self.exchange.split(local_size)
        return [s * local_size for s in counts], [counts[self.exchange.rank] * b for b in split]
