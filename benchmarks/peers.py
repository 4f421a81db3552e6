"""How fast is the training step beside DeepCTR-Torch and FuxiCTR, on the same batches and tables?

    python benchmarks/peers.py

Neither is a dependency; what cannot be imported is left out, and why is said. Both pull much that
a training step does not use, so install them apart, and let PYTHONPATH name the folder:

    pip install --no-deps --target DIR deepctr-torch fuxictr tqdm requests urllib3 idna certifi \
        charset_normalizer pyyaml

DeepCTR-Torch has no DLRM; its PNN is nearest: embeddings, inner products of all pairs, a top MLP,
but no bottom MLP. FuxiCTR has DLRM among its examples, not in its package; here it is built from
its layers. Both are spared what they do by default beyond a plain step: penalties on weights,
clipping and, unless --optim adam asks for it, Adam. Both have dense gradients of their tables, and
so touch every row in every step, which takes memory too: the rows are as many as fit.
"""

import argparse
import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.batch import Batch
from dlrm.bench.arch import ARCHS, NUM_DENSE, Arch
from dlrm.bench.batches import rotation
from dlrm.bench.local_step import LEARNING_RATE, LocalStep
from dlrm.bench.results import append
from dlrm.bench.rivals.original import stand_in
from dlrm.bench.timer import (
    figures,
    in_turn,
    interleave,
    peak_bytes,
    ratio,
    round_steps,
    verdict,
)
from dlrm.errors import ConfigError
from dlrm.planning.quantities import counts
from dlrm.terminal import table

STEPS = 2
"""Steps of a peer a round: each takes about a second."""
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
"""Those of the peers; Adam is what both take by default."""
REST_BYTES = 2 << 30
"""Of batches, activations and libraries."""


class Peer:
    """A model that takes what `layout` makes of a batch, trained by torch's optimizer."""

    def __init__(self, model: nn.Module, layout: Callable[[Batch], Any], optimizer: str):
        self.model, self.layout = model, layout
        kind: Any = OPTIMIZERS[optimizer]
        self.optimizer: Optimizer = kind(model.parameters(), lr=LEARNING_RATE)

    def step(self, batch: tuple[Any, Tensor]) -> None:
        inputs, labels = batch
        self.optimizer.zero_grad()
        F.binary_cross_entropy(self.model(inputs).squeeze(1), labels).backward()
        self.optimizer.step()


def deepctr(arch: Arch, optimizer: str) -> Peer:
    """PNN with inner products, its ids in one float tensor beside the numbers, as it has them."""
    for name in ("h5py", "tqdm", "sklearn.metrics"):
        stand_in(name)
    from deepctr_torch.inputs import (  # pyright: ignore[reportMissingImports]
        DenseFeat,
        SparseFeat,
    )
    from deepctr_torch.models import PNN  # pyright: ignore[reportMissingImports]

    columns = [SparseFeat(f"C{t}", n, arch.model.dim) for t, n in enumerate(arch.num_embeddings)]
    columns += [DenseFeat(f"I{i}", 1) for i in range(NUM_DENSE)]
    model = PNN(columns, dnn_hidden_units=arch.model.top, l2_reg_embedding=0)
    return Peer(model, lambda batch: torch.cat([batch.ids.float(), batch.dense], dim=1), optimizer)


def fuxictr(arch: Arch, optimizer: str) -> Peer:
    """DLRM of its embedding, MLP and inner product layers."""
    import fuxictr  # noqa: F401  # pyright: ignore[reportMissingImports]

    # Preprocessing needs ray and more; the layers import it and do not use it here.
    stand_in("fuxictr.preprocess.tokenizer")
    from fuxictr.features import FeatureMap  # pyright: ignore[reportMissingImports]
    from fuxictr.pytorch import layers  # pyright: ignore[reportMissingImports]

    names = [f"C{t}" for t in range(len(arch.num_embeddings))]
    features = FeatureMap("bench", ".")
    for name, n in zip(names, arch.num_embeddings, strict=True):
        features.features[name] = {"type": "categorical", "source": "", "vocab_size": n}

    class DLRM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = layers.FeatureEmbedding(features, arch.model.dim)
            self.bottom = layers.MLP_Block(
                NUM_DENSE, hidden_units=[*arch.model.bottom, arch.model.dim]
            )
            self.interact = layers.InnerProductInteraction(len(names) + 1, "inner_product")
            self.top = layers.MLP_Block(
                arch.top[0],
                hidden_units=list(arch.model.top),
                output_dim=1,
                output_activation="sigmoid",
            )

        def forward(self, inputs: tuple[Tensor, dict[str, Tensor]]) -> Tensor:
            dense, ids = inputs
            x = self.bottom(dense)
            vectors = torch.cat([x[:, None], self.embedding(ids)], dim=1)
            return self.top(torch.cat([x, self.interact(vectors)], dim=1))

    def layout(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        ids = batch.ids.long().t().contiguous()
        return batch.dense, dict(zip(names, ids, strict=True))

    return Peer(DLRM(), layout, optimizer)


PEERS = {"deepctr": deepctr, "fuxictr": fuxictr}
SCALES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01)


def need_bytes(arch: Arch, optimizer: str) -> int:
    """Return about how much memory a peer takes beside ours: parameters, gradients, states."""
    states = {"sgd": 0, "adam": 2}[optimizer]
    # DeepCTR-Torch also has a weight a row.
    peer = arch.rows_total * (arch.model.dim + 1) * 4 * (1 + 1 + states)
    # While it is updated, some values of the largest table are there again.
    peer += 2 * max(arch.num_embeddings) * arch.model.dim * 4
    return peer + arch.rows_total * arch.model.dim * 4 * (1 + states) + REST_BYTES


def largest(optimizer: str, memory_bytes: float) -> float:
    """Return the largest share of the rows with which a peer and ours fit into memory."""
    arch = ARCHS["criteo-kaggle"]
    fitting = [x for x in SCALES if need_bytes(arch.scaled(x), optimizer) <= memory_bytes]
    if not fitting:
        raise ConfigError(f"not even {SCALES[-1]} of the rows fit into {memory_bytes / 2**30} GiB")
    return fitting[0]


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--peer", choices=PEERS, help="one of them; all, each in its own process")
    flags.add_argument("--batch", default="128,2048")
    flags.add_argument("--optim", choices=OPTIMIZERS, default="sgd")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--rows-scale", type=float, default=0.0, help="0: as many rows as fit")
    flags.add_argument("--memory-gb", type=float, default=20.0, help="what may be used, in GiB")
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.rows_scale, given.batch, given.rounds = 0.001, "8", 2
    if given.peer is None:
        # Each holds its tables and gradients as large as they are: what one frees, the next needs.
        for name in PEERS:
            subprocess.run([sys.executable, __file__, *words, "--peer", name], check=True)
        return
    scale = given.rows_scale or largest(given.optim, given.memory_gb * 2**30)
    measure(given, scale)


def measure(given: argparse.Namespace, scale: float) -> None:
    """Measure one peer at each batch size; say so where it is not there."""
    console, arch, name = Console(), ARCHS["criteo-kaggle"].scaled(scale), given.peer
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            peer = PEERS[name](arch, given.optim)
    except ImportError as error:
        console.print(f"Without {name}: {error}")
        return
    console.print(
        f"{name}, {given.optim}: {scale:g} of the rows, some "
        f"{need_bytes(arch, given.optim) / 2**30:.1f} of {given.memory_gb:g} GiB"
    )
    ours = LocalStep(arch, "fp32", given.optim)
    title = f"Training step, fp32, {given.optim}, beside {name}"
    shown, path = table(title, "batch", "ours, ms", f"{name}, ms", "speedup"), given.out
    for batch_size in counts("batch", given.batch):
        batches = rotation(arch.schema, batch_size, "uniform")
        its = [(peer.layout(batch), batch.labels[:, 0]) for batch in batches]
        steps = round_steps(batch_size)
        timed = interleave(
            {"ours": in_turn(ours.step, batches, steps), name: in_turn(peer.step, its, STEPS)},
            rounds=given.rounds,
        )
        mine, other = timed["ours"].per(steps), timed[name].per(STEPS)
        middle, low, high = ratio(other, mine)
        cells = (f"{value:.3g}" for value in (mine.median * 1e3, other.median * 1e3, middle))
        shown.add_row(f"{batch_size:,}", *cells)
        row = {"arch": arch.name, "rows_scale": scale, "precision": "fp32", "optim": given.optim}
        row |= {"batch_size": batch_size, "peer": name, **figures(mine), **figures(other)}
        row |= {"speedup": middle, "speedup_interval": [low, high]}
        row |= {"verdict": verdict(mine, other), "peak_bytes": peak_bytes()}
        path = append("peers", row, given.out)
    console.print(shown)
    console.print(f"Saved: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
