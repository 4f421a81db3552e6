"""State and cost of an optimizer, as its class declares them.

Planning, checkpoints, sharding and benchmarks read this and keep no tables of their own. A test
holds every declaration against the tensors that the optimizer really has.
"""

from dataclasses import dataclass

from dlrm.ops.storage import Storage

FLOAT_BYTES = 4
LOWER_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """State and work of an optimizer, beyond the parameters themselves.

    A number of state is a float32, of parameters in bfloat16 too, and is read and written once
    whenever what it belongs to is updated.
    """

    state_per_table_number: int = 0
    """Numbers of state that belong to each number of an embedding table."""
    state_per_table_row: int = 0
    """Numbers of state that belong to each row of an embedding table as a whole. Where columns of a
    table are sharded, each of their owners keeps them."""
    state_per_dense_number: int = 0
    """Numbers of state that belong to each number of a dense parameter."""
    state_bytes_per_group: int = 0
    """Bytes that are kept once for each parameter group, such as the count of its steps."""
    table_flops: int
    """Operations on each number of an updated row, the sum over equal rows not counted."""
    dense_flops: int
    """Operations on each number of a dense parameter."""
    adds_up_rows: bool = True
    """Whether gradients of equal rows are added up before the update. An update that is linear in
    the gradient need not, where storing loses nothing."""
    takes_bags: bool = False
    """Whether the update takes the gradients of bags, of which each row finds its own; otherwise
    each row that was looked up gets one written."""
    fbgemm: str | None = None
    """The member of FBGEMM's `EmbOptimType` that does the same to rows on the CPU, such as
    `EXACT_SGD`; None if there is none."""
    torch: str | None = None
    """The class in `torch.optim` that does the same to the rows of a sparse gradient, such as
    `SparseAdam`; None if there is none."""

    @property
    def dense_reads(self) -> int:
        """Numbers read per number of a dense parameter: itself, its gradient, its state."""
        return 2 + self.state_per_dense_number

    @property
    def dense_writes(self) -> int:
        """Numbers written per number of a dense parameter: itself and its state."""
        return 1 + self.state_per_dense_number

    def row_state_bytes(self, dim: int, storage: Storage = "fp32") -> int:
        """Return the bytes kept of a row of `dim` numbers, lower halves of split tables included.

        Args:
            dim: Numbers of the row, or of the columns of it that a process has.
            storage: How the table is stored.

        """
        lower = LOWER_BYTES if storage == "split" else 0
        per_number = FLOAT_BYTES * self.state_per_table_number + lower
        return dim * per_number + FLOAT_BYTES * self.state_per_table_row

    def dense_state_bytes(self, numbers: int) -> int:
        """Return the bytes kept of so many numbers of dense parameters."""
        return FLOAT_BYTES * self.state_per_dense_number * numbers
