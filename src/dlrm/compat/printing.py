"""The original's printed lines and tables."""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch
from dlrm.compat.batches import Data
from dlrm.compat.flags import Flags
from dlrm.compat.saved_model import State
from dlrm.parallel.world import World


def print_architecture(
    data: Data, bottom: list[int], top: list[int], dims: int | list[int]
) -> None:
    """Print sizes of layers and tables.

    `bottom` and `top` are the inputs of an MLP, then the outputs of each of its layers; `dims` is
    the dimension of the tables, or of each of them.
    """
    print("model arch:")
    print(f"mlp top arch {len(top) - 1} layers, with input to output dimensions:")
    print(np.array(top))
    print("# of interactions")
    print(top[0])
    print(f"mlp bot arch {len(bottom) - 1} layers, with input to output dimensions:")
    print(np.array(bottom))
    print("# of features (sparse and dense)")
    print(len(data.schema.features) + 1)
    print("dense feature size")
    print(len(data.schema.dense))
    print("sparse feature size")
    print(dims)
    sizes = data.schema.num_embeddings
    print(f"# of embeddings (= # of sparse features) {len(sizes)}, with dimensions {dims}x:")
    print(np.array(sizes))


def print_batches(flags: Flags, data: Data, count: int) -> None:
    """Print the first `count` training batches."""
    print("data (inputs and targets):")
    # All of the data are read, as in the original: drawing them moves the random numbers on.
    for number, batch in enumerate(data.train.read()):
        if number >= count:
            break
        print(f"mini-batch: {number}")
        if flags.numerics == "readme2019":
            _print_arrays(batch, flags.print_precision)
        else:
            _print_tensors(batch)


def _print_tensors(batch: Batch) -> None:
    bags = _bags(batch)
    print(batch.dense)
    print(torch.tensor([[len(bag) for bag in table] for table in bags], dtype=torch.int32))
    print([torch.cat(table) for table in bags])
    print(batch.labels)


def _print_arrays(batch: Batch, precision: int) -> None:
    with np.printoptions(precision=precision):
        print(batch.dense.numpy())
        print([[bag.tolist() for bag in table] for table in _bags(batch)])
        print(batch.labels.numpy())


def _bags(batch: Batch) -> list[list[torch.Tensor]]:
    """Return the bags of each table, one per sample."""
    if batch.lists is None:
        return [list(ids.split(1)) for ids in batch.ids.long().T]
    bags = batch.lists.values.split(batch.lists.lengths.tolist())
    return [list(bags[t :: batch.num_lists]) for t in range(batch.num_lists)]


def print_parameters(title: str, parameters: list[NDArray[np.float32]], precision: int) -> None:
    """Print all parameters, as `Engine.parameters` returns them."""
    print(title)
    with np.printoptions(precision=precision):
        for parameter in parameters:
            print(parameter)


class Progress:
    """Loss, accuracy and time since the last printed line.

    The processes share what they have seen when a line is due.
    """

    def __init__(self, flags: Flags, batches: int, world: World):
        self.flags = flags
        self.batches = batches
        self.world = world
        self._clear()

    def _clear(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.samples: list[int] = []
        self.time_s = 0.0

    def add(self, loss: float, correct: int, samples: int, time_s: float) -> None:
        """Count an iteration.

        `loss` is what this process' samples add to the mean loss of the batch, `correct` how many
        of them round to their label, and `samples` those of the whole batch.
        """
        self.seen.append((loss, correct))
        self.samples.append(samples)
        self.time_s += time_s

    def print(self, number: int, epoch: int) -> float:
        """Print the line of batch `number`, start anew, and return the mean loss."""
        seen = self.world.sum(torch.tensor(self.seen, dtype=torch.float64)).tolist()
        # In float32, as the original sums it: the sixth decimal depends on that.
        total = np.float32(0.0)
        for (mean, _), samples in zip(seen, self.samples, strict=True):
            total += np.float32(mean) * np.float32(samples)
        loss = float(total / np.float32(sum(self.samples)))
        accuracy = 100 * sum(correct for _, correct in seen) / sum(self.samples)
        per_iteration = 1000 * self.time_s / len(seen) if self.flags.print_time else -1
        wall_time = f" ({time.strftime('%H:%M')})" if self.flags.print_wall_time else ""
        # The sample run of 2019 counted from 0, and printed the accuracy in training too.
        old = self.flags.numerics == "readme2019"
        print(
            f"Finished training it {number if old else number + 1}/{self.batches} "
            f"of epoch {epoch}, {per_iteration:.2f} ms/it, loss {loss:.6f}"
            + (f", accuracy {accuracy:3.3f} %" if old else "")
            + wall_time,
            flush=True,
        )
        self._clear()
        return loss


def print_accuracy(accuracy: float, best: float) -> None:
    """Print the line of a test pass."""
    print(f" accuracy {accuracy * 100:3.3f} %, best {best * 100:3.3f} %", flush=True)


def print_loaded(state: State) -> None:
    """Print where a loaded model was saved."""
    print(
        f"Saved at: epoch = {state.epoch}/{state.epochs}, "
        f"batch = {state.iteration}/{state.batches}, ntbatch = {state.test_batches}"
    )
    print(f"Training state: loss = {state.train_loss:.6f}")
    print(f"Testing state: accuracy = {state.test_accuracy * 100:3.3f} %")
