"""Rows of a server under load as `dlrm bench serve` writes them, made up."""

from typing import Any

from .benchmarks import row


def latencies(median_ms: float) -> dict[str, float]:
    factors = {"mean": 1.1, "p50": 1.0, "p90": 2.0, "p95": 2.6, "p99": 4.0, "p999": 7.0}
    return {f"{name}_ms": factor * median_ms for name, factor in factors.items()}


def load(what: str, requests_per_s: float, median_ms: float, **values: Any) -> dict[str, Any]:
    about = {
        "what": what, "model": "demo", "sizes": "64", "batch": 1024, "delay": "0 ms",
        "connections": 64, "server": None, "data": "own", "length": "3 s", "requests": 9000,
        "failed": 0, "cut": False, "load_cpu_share": 0.1, "others_share": 0.01,
        "requests_per_s": requests_per_s, "rows_per_s": 64 * requests_per_s,
    }  # fmt: skip
    return row("serve", {**about, **latencies(median_ms), **values})


def floors() -> list[dict[str, Any]]:
    def floor(of: str, requests_per_s: float, median_ms: float) -> dict[str, Any]:
        figures = {"requests_per_s": requests_per_s, **latencies(median_ms)}
        return row("serve", {"what": "floor", "of": of, **figures})

    return [floor("generator", 350_000.0, 0.08), floor("http", 52_000.0, 0.06)]


def arrivals() -> list[dict[str, Any]]:
    rates = [1000, 2000, 3000, 4000, 4700, 4700, 4950]
    medians = [1.1, 1.4, 2.1, 3.8, 9.0, 10.0, 28.0]
    rows = [
        load("server", 0.99 * rate, median, rate=rate)
        for rate, median in zip(rates, medians, strict=True)
    ]
    return [*rows, load("server", 4900.0, 160.0, rate=6000, cut=True)]


def largest(verdict: str = "held", **values: Any) -> dict[str, Any]:
    found = {
        "within": "60 ms", "verdict": verdict, "largest_per_s": 4700.0, "largest_per_s_low": 4700.0,
        "largest_per_s_high": 4950.0, "rows_per_s": 300_800.0, "held_runs": 3.0,
        "trials": [{"rate": 4700.0, "held": True, "p99_ms": 38.0}],
    }  # fmt: skip
    return load("largest", 0.0, 1.0, **{**found, **values})


def grid() -> list[dict[str, Any]]:
    return [
        load("grid", 100.0 * (1 + at) + 10 * delay, 1.0 + delay, batch=batch, delay=f"{delay} ms",
             offered=2500.0)
        for at, batch in enumerate((16, 256, 4096))
        for delay in (0, 1, 5)
    ]  # fmt: skip


def beside() -> list[dict[str, Any]]:
    names = ("demo", "lr", "dcn")
    pairs = [(a, b) for a in names for b in names] + [("demo", "lr, dcn")]
    return [
        load("beside", 3000.0 / (2 + at / 9), 2.0, model=a, beside=b, processes=2, offered=900.0,
             slowdown=1.5 + at / 9, p50_slowdown=1.2 + at / 9, p99_slowdown=2.0 + at / 3)
        for at, (a, b) in enumerate(pairs)
    ]  # fmt: skip


def everything() -> list[dict[str, Any]]:
    alone = [load("offline", 5200.0, 300.0), load("single", 1600.0, 0.6)]
    return [*floors(), *alone, *arrivals(), largest(), *grid(), *beside()]
