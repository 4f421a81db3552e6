"""Every model of the catalogue on every runtime that is installed: who answers alike, how fast?

    python benchmarks/runtimes.py [--models dlrm,dcn] [--runtimes eager,onnx] [--table FILE.md]

Models are those of the catalogue by default, for 13 numbers and 26 categories of 20,000 values,
with parameters that are drawn; ids are drawn evenly, which is the worst case for caches. Then the
goals: the best runtime's call of one sample in at most 30 us; of 1,024 in at most half of eager
PyTorch with 26 separate tables; lists in ONNX within 1.5 times one-hot per lookup; int8 rows a
quarter of the memory, and not slower.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged
from dlrm.bench.results import append
from dlrm.bench.watch import Watch
from dlrm.models import MODELS, build
from dlrm.nn.embedding import EmbeddingCollection, Embeddings
from dlrm.nn.tables import TablesConfig
from dlrm.runtimes import contrast as timing
from dlrm.runtimes import runtime
from dlrm.runtimes.runtime import Options, Session, metadata_of
from dlrm.runtimes.torch_eager import EagerSession
from dlrm.runtimes.trained import TrainedModel
from dlrm.runtimes.verify import drawn
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig

SIZES = (1, 64, 1024)
ROWS, LENGTH = 20_000, 10
"""Rows of each table; ids of each list where lists are timed."""


def model(name: str, rows: int) -> TrainedModel:
    """A model of the catalogue, for Criteo's columns."""
    schema = Schema.one_hot(13, [rows] * 26)
    config = MODELS[name]()
    if name == "mf":
        config = replace(config, user="C1", item="C2")
    torch.manual_seed(0)
    net = build(config, schema).eval()
    return TrainedModel(schema, TrainConfig(model=config), "fp32", net=net)


class Separate(nn.Module):
    """A table a feature, as eager PyTorch has it where nobody stacks them."""

    def __init__(self, embeddings: EmbeddingCollection):
        super().__init__()
        self.bags = nn.ModuleList(
            nn.EmbeddingBag.from_pretrained(embeddings.table(t).clone(), mode="sum")
            for t in range(len(embeddings.layout.tables))
        )

    def forward(self, batch: Batch) -> Tensor:
        columns = zip(self.bags, batch.ids.split(1, dim=1), strict=True)
        return torch.stack([bag(ids) for bag, ids in columns], dim=1)


class Sums(nn.Module):
    """Nothing but look-ups."""

    def __init__(self, embeddings: Embeddings):
        super().__init__()
        self.embeddings = embeddings

    def forward(self, batch: Batch) -> Tensor:
        return self.embeddings(batch).sum(dim=(1, 2))[:, None]


def opened(trained: TrainedModel, name: str, folder: Path) -> Session:
    """An artefact of a model, opened."""
    chosen = runtime.find(name)
    path = folder / f"{len(list(folder.iterdir()))}{chosen.suffix}"
    chosen.prepare(trained, path, Options())
    if isinstance(chosen, runtime.Export):
        chosen.write_metadata(path, metadata_of(trained))
    return chosen.open(path, Options())


def goals(rows: int, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """The figures of the goals, each from calls that took turns."""
    trained = model("dlrm", rows)
    sessions = {name: opened(trained, name, folder) for name in names}
    copy = trained.copied()
    assert isinstance(copy.net.embeddings, EmbeddingCollection)
    copy.net.embeddings = Separate(copy.net.embeddings)  # pyright: ignore[reportAttributeAccessIssue]
    timed = timing.latencies(
        {**sessions, "separate": EagerSession(copy)}, trained.schema, [], SIZES
    )
    best = {size: min(names, key=lambda n: timed[n][size].p50_us) for size in SIZES}
    figures: dict[str, Any] = {
        f"best_{size}_us": timed[best[size]][size].p50_us for size in SIZES
    } | {f"best_{size}": best[size] for size in SIZES}
    figures["best_over_separate"] = figures["best_1024_us"] / timed["separate"][1024].p50_us
    if "aoti" in timed:
        for size in SIZES:
            ratio = timed["eager"][size].p50_us / timed["aoti"][size].p50_us
            figures[f"eager_over_aoti_{size}"] = ratio
    if "onnx" in timed:
        figures["lists_over_one_hot"] = lists_over_one_hot(rows, folder)
        small = {
            "int8": opened(trained.quantized("int8"), "onnx", folder),
            "fp32": sessions["onnx"],
        }
        by_bits = timing.latencies(small, trained.schema, [], SIZES)
        for size in SIZES:
            ratio = by_bits["int8"][size].p50_us / by_bits["fp32"][size].p50_us
            figures[f"int8_over_fp32_{size}"] = ratio
    return figures


def lists_over_one_hot(rows: int, folder: Path) -> float:
    """The time of a look-up in lists of ten over that of one id each, in ONNX.

    Both have as many look-ups a call, of 1,024 samples with one id each.
    """
    seconds = {}
    for kind, length in (("one_hot", 1), ("bag", LENGTH)):
        schema = Schema.one_hot(0, [rows] * 26, kind=kind)  # pyright: ignore[reportArgumentType]
        net = Sums(TablesConfig().build(schema, 16))
        for module in net.modules():
            if isinstance(module, EmbeddingCollection):
                module.materialize(torch.device("cpu"))
        session = opened(TrainedModel(schema, TrainConfig(), "fp32", net=net), "onnx", folder)
        samples = 1024 // length
        batches = [drawn(schema, samples, seed) for seed in range(timing.INPUTS)]
        if kind == "bag":
            ends = torch.arange(0, samples * 26 * LENGTH + 1, LENGTH)
            batches = [
                replace(batch, lists=Jagged(torch.randint(0, rows, (int(ends[-1]),)), ends))
                for batch in batches
            ]
        timed = timing.latencies({kind: session}, schema, batches, [samples])
        seconds[kind] = timed[kind][samples].p50_us / (samples * length)
    return seconds["bag"] / seconds["one_hot"]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table of Markdown."""
    lines = [
        "| model | runtime | difference | verdict | us at 1 | at 64 | at 1024 | start-up s | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = " | ".join(f"{row[f'batch_{size}_p50_us']:,.0f}" for size in SIZES)
        lines.append(
            f"| {row['model']} | {row['runtime']} | {row['max_abs_diff']:.0e} | {row['verdict']} | "
            f"{times} | {row['start_up_s']:.2f} | {row['size_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    flags.add_argument("--runtimes", default=",".join(runtime.RUNTIMES), help="likewise")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--table", type=Path, help="write the table into this file too")
    flags.add_argument("--no-goals", action="store_true", help="the table alone")
    flags.add_argument(
        "--quick", action="store_true", help="small tables, few calls: does it work?"
    )
    given = flags.parse_args(list(words))
    rows = 100 if given.quick else ROWS
    if given.quick:
        timing.SHARE_S = 0.0
    names = [n for n in given.runtimes.split(",") if runtime.find(n).why_missing() is None]
    shown = []
    for name in given.models.split(","):
        trained = model(name, rows)
        batches = [drawn(trained.schema, 1024, seed) for seed in range(2 if given.quick else 16)]
        with Watch() as watch:
            measured = timing.contrast(trained, names, batches, Options(), sizes=SIZES)
        for row in measured:
            if row.missing or row.latency is None:
                print(f"{name} on {row.name}: {row.missing}")
                continue
            times = {
                f"batch_{size}_{part}": getattr(latency, part)
                for size, latency in row.latency.items()
                for part in ("p50_us", "p99_us")
            }
            values = {
                "model": name,
                "runtime": row.name,
                "runtime_version": str((row.about or {}).get("version")),
                "max_abs_diff": row.max_abs_diff,
                "verdict": row.verdict,
                "rank_flips": row.rank_flips,
                "start_up_s": row.start_up_s,
                "prepare_s": row.prepare_s,
                "size_bytes": row.size_bytes,
                "rows": rows,
                **times,
            }
            append("runtimes", values, given.out)
            shown.append(values)
            print(table([values]).splitlines()[-1], flush=True)
        if warning := watch.seen.warning:
            print(f"Doubtful: {warning}")
    if given.table:
        given.table.write_text(table(shown) + "\n")
    if not given.no_goals:
        with tempfile.TemporaryDirectory() as folder:
            figures = goals(rows, names, Path(folder))
        append("runtimes-goals", {"rows": rows, **figures}, given.out)
        for key, value in figures.items():
            print(f"{key}: {value:.3g}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
