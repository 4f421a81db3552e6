"""TensorBoard events of a run, for who likes to watch it there.

In: numbers by name and step. Out: an events file in a folder that `tensorboard --logdir` reads.
"""

from collections.abc import Mapping
from pathlib import Path

from dlrm.errors import MissingExtraError


class EventWriter:
    """Writes numbers as TensorBoard events.

    Args:
        folder: Where the events file goes; made when it is not there.
        resumed_at: The step of the checkpoint that a resumed run starts from. Events of later
            steps, written before the run was killed, are hidden, so that none shows twice.

    Raises:
        MissingExtraError: tensorboard is not installed.

    """

    def __init__(self, folder: Path, *, resumed_at: int | None = None):
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("TensorBoard events", "tensorboard") from error
        purge = None if resumed_at is None else resumed_at + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def scalars(self, step: int, numbers: Mapping[str, float | None]) -> None:
        """Write numbers by name, e.g. `{"train/loss": 0.51}`; None, undefined, is left out."""
        for name, number in numbers.items():
            if number is not None:
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        """Write out what is still held, and end the file."""
        self._writer.close()
