"""How faithful are generated traces, and how fast are profiling, fitting and generating?

    python benchmarks/traces.py --data FOLDER [--original CHECKOUT] [--quick]

FOLDER (or DLRM_DATA) holds criteo/head72k_hashed.tsv.gz, frappe/train.libsvm.gz and
ml100k/u.data.gz; what is not there is left out, and that is said. Beside them stand streams that
are made here: drifting and jumping Zipf, and a scan that loops. Of each source the hybrid and all
baselines get a card. The scan over a billion accesses is streamed and made as it goes. With
`pip install libcachesim` its LRU caches check the miss ratios at a few sizes.
"""

import argparse
import gzip
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm import terminal
from dlrm.bench.results import append
from dlrm.traces import plain
from dlrm.traces.card import compare
from dlrm.traces.hybrid import Hybrid
from dlrm.traces.measures import Measures, cache_sizes, miss_ratios, sampled_miss_ratios
from dlrm.traces.native import Sampler, renumber, stack_distances
from dlrm.traces.trace import Trace
from dlrm.traces.workload import MODELS

EXACT, STREAMED, LIST = 10_000_000, 1_000_000_000, 50_000
CHUNK = 1 << 22


def sources(folder: Path | None, size: int) -> Iterator[Trace]:
    """Yield the traces that cards are made of."""
    rng = np.random.default_rng(0)
    weights = 1 / (np.arange(1, 20_001) + 2.7) ** 0.9
    zipf = rng.choice(20_000, size, p=weights / weights.sum())
    yield Trace.of("drifting Zipf", (zipf + np.arange(size) // 400) % 20_000)
    jumps = (rng.zipf(1.2, size) - 1) % 20_000 + np.arange(size) // 20_000 * 997
    yield Trace.of("jumping Zipf", jumps % 50_000)
    yield Trace.of("looping scan", np.arange(size) % 7000)
    mixed = np.where(rng.random(size) < 0.3, np.arange(size) % 9000, 9000 + zipf)
    yield Trace.of("scan and Zipf", mixed)
    if folder is None:
        return
    for name, read in (("criteo", _criteo), ("frappe", _frappe), ("ml100k", _movielens)):
        if (folder / name).is_dir():
            yield from read(folder / name)
        else:
            print(f"left out: {folder / name} is not there", file=sys.stderr)


def _criteo(folder: Path) -> Iterator[Trace]:
    rows = [line.split("\t") for line in _lines(folder / "head72k_hashed.tsv.gz")]
    for number in range(1, 27):
        yield _named(f"Criteo C{number}", [row[13 + number] for row in rows])


def _frappe(folder: Path) -> Iterator[Trace]:
    rows = [line.split() for line in _lines(folder / "train.libsvm.gz")]
    yield _named("Frappe users", [row[1] for row in rows])
    yield _named("Frappe items", [row[2] for row in rows])


def _movielens(folder: Path) -> Iterator[Trace]:
    rows = np.array([line.split() for line in _lines(folder / "u.data.gz")], np.int64)
    rows = rows[np.argsort(rows[:, 3], kind="stable")]
    yield Trace.of("MovieLens items in time order", rows[:, 1])
    yield Trace.of("MovieLens users in time order", rows[:, 0])


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        return [line.rstrip("\n") for line in file]


def _named(name: str, values: list[str]) -> Trace:
    return Trace.of(name, np.unique(np.array(values), return_inverse=True)[1])


def cards(folder: Path | None, size: int) -> list[dict[str, Any]]:
    """Return a row for each source and each model, its worst measure as a multiple of its limit."""
    rows, grid = [], terminal.table("Worst measure, in limits", "source", *MODELS, "hybrid is")
    for trace in sources(folder, size):
        measures = Measures(trace)
        every = {}
        for kind, model in MODELS.items():
            every[kind] = compare(measures, Measures(model.fitted(trace).generate(len(trace), 7)))
            rows.append(
                {"what": "card", "source": trace.name, "model": kind, "accesses": len(trace)}
                | every[kind].to_dict()
            )
        worst = [f"{card.worst:.2f}" for card in every.values()]
        grid.add_row(trace.name, *worst, every["hybrid"].verdict)
    terminal.out.print(grid)
    return rows


def speeds(size: int, streamed: int, listed: int) -> list[dict[str, Any]]:
    """Return a row for each figure of speed."""
    rows: list[dict[str, Any]] = []
    grid = terminal.table("Speed", "what", "accesses", "seconds", "accesses/s", "note")

    def timed(
        what: str, accesses: int, work: Callable[[], Any], note: Callable[[], str] = str
    ) -> Any:
        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        grid.add_row(what, f"{accesses:,}", f"{seconds:.2f}", f"{accesses / seconds:,.0f}", note())
        row = {"what": what, "accesses": accesses, "elapsed_s": seconds}
        rows.append(row | {"accesses_per_s": accesses / seconds})
        return result

    ids = np.random.default_rng(1).zipf(1.15, size) % 3_000_000
    # Compiled beforehand.
    stack_distances(*renumber(ids[:100]))
    trace = Trace.of("zipf", ids)
    timed("exact stack distances", size, lambda: trace.distances)
    few = renumber(ids[:listed])
    timed("exact stack distances, by a list", listed, lambda: plain.stack_distances(*few))
    model = timed("fit of the hybrid", size, lambda: Hybrid.fitted(trace))
    for kind in ("poisson", "regular", "shuffled"):
        model.time = kind
        timed(f"generation, {kind}", size, lambda: model.generate(size))
    stack = MODELS["lru-stack"].fitted(trace)
    timed("generation, LRU stack", size, lambda: stack.generate(size))

    def sampled() -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        sampler, fed = Sampler(), 0
        while fed < streamed:
            sampler.feed(np.roll(ids, fed)[: min(CHUNK, streamed - fed)])
            fed += min(CHUNK, size)
        return sampled_miss_ratios(sampler)

    timed("sampled stack distances, streamed", streamed, sampled, _peak)
    sampler = Sampler()
    sampler.feed(ids)
    sizes, ratios, share = sampled_miss_ratios(sampler)
    exact = cache_sizes(len(trace.counts))
    error = np.abs(np.interp(exact, sizes, ratios) - miss_ratios(trace.distances, exact))
    note = f"{error.mean():.4f} off on average, {error.max():.4f} at most, {share:.1%} of the ids"
    grid.add_row("sampled against exact", f"{size:,}", "", "", note)
    differences = {"mean_abs_diff": float(error.mean()), "max_abs_diff": float(error.max())}
    rows.append({"what": "sampled against exact", "accesses": size, "share": share, **differences})
    rows += _oracle(trace)
    terminal.out.print(grid)
    return rows


def _peak() -> str:
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"


def _oracle(trace: Trace) -> list[dict[str, Any]]:
    """Return the miss ratios of libcachesim's LRU caches beside ours, where it is installed."""
    try:
        import libcachesim  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("left out: libcachesim is not installed", file=sys.stderr)
        return []
    rows = []
    part = Trace.of("part", trace.ids[:200_000])
    for size in (16, 1000, 20_000):
        cache = libcachesim.LRU(size)
        misses = 0
        for number, id_ in enumerate(part.ids.tolist()):
            request = libcachesim.Request(obj_id=id_, obj_size=1, clock_time=number)
            misses += not cache.get(request)
        ours = float(miss_ratios(part.distances, np.array([size]))[0])
        difference = abs(ours - misses / len(part))
        figures = {"accesses": len(part), "miss_ratio": ours, "max_abs_diff": difference}
        rows.append({"what": "libcachesim", "cache_rows": size, **figures})
        print(f"LRU of {size:,} rows misses {ours:.5f}; libcachesim says {misses / len(part):.5f}")
    return rows


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--data", type=Path, default=os.environ.get("DLRM_DATA"))
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a few accesses: does it work at all?")
    given = flags.parse_args(list(words))
    factor = 1000 if given.quick else 1
    rows = cards(given.data, 20_000 if given.quick else 400_000)
    rows += speeds(EXACT // factor, STREAMED // factor, LIST // (10 if given.quick else 1))
    for row in rows:
        append("traces", row, given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
