"""TensorBoard events in the folder of `--tensor-board-filename`."""

from pathlib import Path

from dlrm.compat.flags import Flags
from dlrm.errors import MissingExtraError
from dlrm.training.tensorboard import EventWriter


class Events:
    """Writes events if tensorboard is installed.

    `first_step` is the step that a loaded model was saved at, else 0; `written` says whether this
    process writes.

    Raises:
        MissingExtraError: A folder was asked for, but tensorboard is not installed.

    """

    def __init__(self, flags: Flags, first_step: int, *, written: bool = True):
        folder = flags.tensor_board_filename
        self.writer = None
        if not written:
            return
        try:
            self.writer = EventWriter(Path(folder), resumed_at=first_step or None)
        except MissingExtraError:
            # The original writes to the default folder unasked, so nobody needs to miss it.
            if folder != Flags().tensor_board_filename:
                raise

    def add(self, name: str, number: float, step: int) -> None:
        """Write a number."""
        if self.writer is not None:
            self.writer.scalars(step, {name: number})

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.close()
