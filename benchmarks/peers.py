"""How fast is the training step beside DeepCTR-Torch and FuxiCTR, on the same batches and tables?

    python benchmarks/peers.py

Neither is a dependency; what cannot be imported is left out, and why is said. Both pull much that
a training step does not use, so install them apart, and let PYTHONPATH name the folder:

    pip install --no-deps --target DIR deepctr-torch fuxictr tqdm requests urllib3 idna certifi \
        charset_normalizer pyyaml

DeepCTR-Torch has no DLRM; its PNN is nearest: embeddings, inner products of all pairs, a top MLP,
but no bottom MLP. FuxiCTR has DLRM among its examples, not in its package; here it is built from
its layers. Both are spared what they do by default beyond a step of SGD: penalties on weights,
clipping, Adam. Both have dense gradients of their tables, and so touch every row in every step.
"""

import argparse
import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.bench.arch import ARCHS, NUM_DENSE, Arch
from dlrm.bench.batches import batch_sizes, rotation
from dlrm.bench.original import stand_in
from dlrm.bench.ours import LEARNING_RATES, Ours
from dlrm.bench.timer import figures, interleave, ratio, save, verdict
from dlrm.bench.training import in_turn, round_steps
from dlrm.terminal import table

STEPS = 2
"""Steps of a peer a round: each takes about a second."""


class Peer:
    """A model that takes what `layout` makes of a batch, trained with SGD."""

    def __init__(self, model: nn.Module, layout: Callable[[Batch], Any]):
        self.model, self.layout = model, layout
        self.optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATES["sgd"])

    def step(self, batch: tuple[Any, Tensor]) -> None:
        inputs, labels = batch
        self.optimizer.zero_grad()
        F.binary_cross_entropy(self.model(inputs).squeeze(1), labels).backward()
        self.optimizer.step()


def deepctr(arch: Arch) -> Peer:
    """PNN with inner products, its ids in one float tensor beside the numbers, as it has them."""
    for name in ("h5py", "tqdm", "sklearn.metrics"):
        stand_in(name)
    from deepctr_torch.inputs import (  # pyright: ignore[reportMissingImports]
        DenseFeat,
        SparseFeat,
    )
    from deepctr_torch.models import PNN  # pyright: ignore[reportMissingImports]

    columns = [SparseFeat(f"C{t}", n, arch.model.dim) for t, n in enumerate(arch.rows)]
    columns += [DenseFeat(f"I{i}", 1) for i in range(NUM_DENSE)]
    model = PNN(columns, dnn_hidden_units=arch.model.top, l2_reg_embedding=0)
    return Peer(model, lambda batch: torch.cat([batch.ids.float(), batch.dense], dim=1))


def fuxictr(arch: Arch) -> Peer:
    """DLRM of its embedding, MLP and inner product layers."""
    import fuxictr  # noqa: F401  # pyright: ignore[reportMissingImports]

    # Preprocessing needs ray and more; the layers import it and do not use it here.
    stand_in("fuxictr.preprocess.tokenizer")
    from fuxictr.features import FeatureMap  # pyright: ignore[reportMissingImports]
    from fuxictr.pytorch import layers  # pyright: ignore[reportMissingImports]

    names = [f"C{t}" for t in range(len(arch.rows))]
    features = FeatureMap("bench", ".")
    for name, rows in zip(names, arch.rows, strict=True):
        features.features[name] = {"type": "categorical", "source": "", "vocab_size": rows}

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

    return Peer(DLRM(), layout)


PEERS = {"deepctr": deepctr, "fuxictr": fuxictr}


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--batch", default="128,2048")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--rows-scale", type=float, default=1.0)
    given = flags.parse_args(list(words))
    console, arch, path = Console(), ARCHS["criteo-kaggle"].scaled(given.rows_scale), None
    # One peer at a time: each holds its tables and gradients as large as they are.
    for name, build in PEERS.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                peer = build(arch)
        except ImportError as error:
            console.print(f"Without {name}: {error}")
            continue
        ours = Ours(arch, "fp32", "sgd")
        shown = table(f"Training step, fp32, beside {name}", "batch", "ours, ms", f"{name}, ms")
        for batch_size in batch_sizes(given.batch):
            batches = rotation(arch.rows, batch_size, "uniform")
            its = [(peer.layout(batch), batch.labels) for batch in batches]
            steps = round_steps(batch_size)
            timed = interleave(
                {"ours": in_turn(ours.step, batches, steps), name: in_turn(peer.step, its, STEPS)},
                rounds=given.rounds,
            )
            mine, other = timed["ours"].per(steps), timed[name].per(STEPS)
            middle, low, high = ratio(other, mine)
            shown.add_row(
                f"{batch_size:,}", f"{mine.median * 1e3:.3g}", f"{other.median * 1e3:.3g}"
            )
            row = {"arch": arch.name, "rows_scale": given.rows_scale, "precision": "fp32"}
            row |= {"batch_size": batch_size, "peer": name, **figures(mine), **figures(other)}
            row |= {"speedup": middle, "speedup_interval": [low, high]}
            path = save("peers", row | {"verdict": verdict(mine, other)}, given.out)
            console.print(f"batch {batch_size}: {verdict(mine, other)}")
        console.print(shown)
        del peer, ours
    if path:
        console.print(f"Saved: {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
