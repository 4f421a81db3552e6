"""Rows of results as the commands of `dlrm bench` write them, made up."""

from typing import Any

PROVENANCE = {
    "commit": "83b7838", "dlrm": "0.1.0", "python": "3.13.5", "torch": "2.13.0", "numpy": "2.3.1",
    "polars": "1.35.0", "cpu": "AMD EPYC", "cores": 2, "threads": 2, "load": 0.1,
    "steal_share": 0.004, "system": "Linux", "machine": "0123456789ab", "seed": 0,
    "taken": "2026-11-20T20:00:00+00:00", "command": "dlrm bench train criteo-kaggle",
}  # fmt: skip
EXPONENTS = {"compute": 0.95, "stream": 0.6, "latency": 0.9}

# FLOP, bytes, terms in ms (calls, compute, stream, latency, transfer), share of the forward pass
OPERATORS = {
    "lookup": (0.0, 6.8e6, (0.02, 0.0, 0.05, 0.42, 0.11), 1.0),
    "update": (1.7e6, 13.6e6, (0.02, 0.01, 0.08, 0.7, 0.2), 0.0),
    "bottom MLP": (1.9e9, 12e6, (0.1, 2.1, 0.3, 0.0, 0.0), 0.4),
    "interaction": (0.14e9, 8e6, (0.03, 0.4, 0.5, 0.0, 0.0), 0.5),
    "top MLP": (3.9e9, 30e6, (0.1, 4.4, 0.6, 0.0, 0.0), 0.35),
    "loss": (2e4, 5e4, (0.05, 0.001, 0.001, 0.0, 0.0), 0.5),
    "dense update": (1.1e6, 8e6, (0.04, 0.01, 0.2, 0.0, 0.0), 0.0),
    "other": (0.0, 1e6, (0.3, 0.0, 0.02, 0.0, 0.0), 0.0),
}
TERMS = ("calls_ms", "compute_ms", "stream_ms", "latency_ms", "transfer_ms")
BOUNDS = ("calls", "compute", "memory bandwidth", "memory latency", "memory bandwidth")


def row(suite: str, values: dict[str, Any], **provenance: Any) -> dict[str, Any]:
    return {"schema": 1, "suite": suite, **PROVENANCE, **values, **provenance}


def machine(**provenance: Any) -> dict[str, Any]:
    sizes = [2**power for power in range(16, 31, 2)]
    return row(
        "machine",
        {
            "facts": {
                "cpu": "AMD EPYC",
                "cores": 2,
                "instructions": ["avx2", "avx512f", "avx512_bf16"],
                "caches": [
                    {"level": 1, "size_bytes": 49152, "cores": 1, "instances": 2},
                    {"level": 2, "size_bytes": 1 << 20, "cores": 1, "instances": 2},
                    {"level": 3, "size_bytes": 32 << 20, "cores": 2, "instances": 1},
                ],
                "memory_bytes": 16 << 30,
                "virtual": True,
                "counters": [],
            },
            "ceilings": {
                "threads": 2,
                "copy": {"1": 24e9, "2": 41e9},
                "flops": {
                    "fp32": {"1": 250e9, "2": 480e9},
                    "bf16": {"1": 480e9, "2": 930e9},
                    "int8": {"1": 500e9, "2": 980e9},
                },
                "gather": [
                    {
                        "row_bytes": wide,
                        "table_bytes": size,
                        "row_s": 2e-9 * (1 + (size / 4e6) ** 0.4) * slow,
                    }
                    for wide, slow in ((64, 1.0), (512, 3.5))
                    for size in sizes
                ],
                "gather_by_threads": {"1": 52e6, "2": 98e6},
                "call_s": 9e-7,
                "spread": {"copy": 0.03},
            },
            "costs": {"error": 0.09},
        },
        command="dlrm bench machine",
        **provenance,
    )  # fmt: skip


def operator(name: str, scale: float, training: bool) -> dict[str, Any]:
    flops, size, terms, forward = OPERATORS[name]
    each = [scale * term for term in terms]
    ms = sum(each)
    half = forward if training else 1.0
    roof = 0.6 * ms
    return {
        "name": name, "forward_ms": half * ms, "backward_ms": (1 - half) * ms, "ms": ms,
        "share": ms / (scale * sum(sum(o[2]) for o in OPERATORS.values())),
        "flops": flops * scale, "bytes": size * scale, "lines": size * scale / 64,
        "gflops_per_s": flops * scale / ms / 1e6, "gb_per_s": size * scale / ms / 1e6,
        "intensity": flops / size, "roofline_ms": roof, "roofline_share": roof / ms,
        "bound": BOUNDS[each.index(max(each))], "predicted_ms": 1.07 * ms,
        "terms": dict(zip(TERMS, each, strict=True)),
        "cache": [[0.25, 1.3], [0.5, 1.15], [1.0, 1.0], [2.0, 0.82], [4.0, 0.6], [16.0, 0.3]],
        "precision": {"bf16": 0.52, "int8": 0.5} if "MLP" in name else {},
        "rows": {"bf16": 0.6, "int8": 0.35} if name in ("lookup", "update") else {},
    }  # fmt: skip


def step(suite: str, batch: int, arch: str = "criteo-kaggle", **changed: Any) -> dict[str, Any]:
    scale, training = batch / 2048, suite == "train"
    names = [n for n in OPERATORS if training or n not in ("update", "loss", "dense update")]
    operators = [operator(name, scale + 0.02, training) for name in names]
    ms = sum(each["ms"] for each in operators)
    values = {
        "arch": arch, "model": "dlrm", "batch_size": batch, "precision": "fp32",
        "storage": "fp32", "optim": "sgd", "ids": "uniform", "rows_scale": 1.0, "pooling": 1,
        "dim": 16,
        "step_ms": ms, "step_low": 0.97 * ms, "step_high": 1.04 * ms, "p95_ms": 1.2 * ms,
        "samples_per_s": 1e3 * batch / ms, "roofline_ms": 0.6 * ms, "roofline_share": 0.6,
        "predicted_ms": 1.07 * ms, "model_error": 0.09, "operators": operators,
        "exponents": EXPONENTS,
        "tables": [
            {"name": f"C{t + 1}", "bytes": rows * 64, "row_bytes": 64}
            for t, rows in enumerate([1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 8351593])
        ],
        "verdict": f"A step of {batch:,} takes {ms:.3g} ms: top MLP takes 47%, bound by compute.",
        "changes": [
            {"what": "bf16 products", "how": "--precision bf16", "gain": 1.51},
            {"what": "twice the cores", "how": "hardware", "gain": 1.62},
        ],
    }  # fmt: skip
    return row(suite, values | changed)


def case(name: str, batch: int, **changed: Any) -> dict[str, Any]:
    values = {
        "operator": name, "batch": batch, "tables": 26, "rows": 1_000_000, "dim": 16, "pooling": 1,
        "ids": "uniform", "precision": "fp32", "storage": "fp32", "optim": "sgd",
        "widths": [512, 256], "threads": 2, "ms": 0.3 * batch / 128, "ms_low": 0.29 * batch / 128,
        "ms_high": 0.32 * batch / 128, "p95_ms": 0.4 * batch / 128, "warm_ms": 0.1 * batch / 128,
        "flops": 1e6 * batch, "bytes": 1e5 * batch, "lines": 2e3 * batch, "gflops_per_s": 120.0,
        "gb_per_s": 5.1, "roofline_ms": 0.2 * batch / 128, "roofline_share": 0.66,
        "bound": "memory latency", "error": None,
    }  # fmt: skip
    return row("ops", values | changed, command="dlrm bench ops")


def variant(name: str, kind: str, size: float, change: float, wide: float, **changed: Any):
    values = {
        "data": "clicks:1000000", "recipe": "demo", "variant": name, "kind": kind,
        "seeds": [0, 1, 2], "auc": [0.79 + change, 0.791 + change, 0.7895 + change],
        "normalized_entropy": [0.81, 0.811, 0.8105], "log_loss": [0.45, 0.451, 0.4502],
        "calibration": [1.0, 1.01, 0.99], "auc_mean": 0.7902 + change, "auc_change": change,
        "auc_change_low": change - wide, "auc_change_high": change + wide,
        "normalized_entropy_change": -change, "log_loss_change": -change / 2,
        "calibration_change": 0.001, "noise_auc": 0.0006,
        "verdict": "neutral" if abs(change) + wide < 2e-4 else "worse", "bytes_per_sample": size,
        "tables_bytes": int(size * 1e5), "samples_per_s": 2e5, "speedup": 1664 / size,
        "pareto": True, "error": None,
    }  # fmt: skip
    return row("numerics", values | changed, command="dlrm bench numerics")


def numerics() -> list[dict[str, Any]]:
    return [
        variant("fp32", "reference", 1664, 0.0, 0.0),
        variant("bf16", "training", 832, -0.00004, 0.0001),
        variant("bf16-stochastic", "training", 832, 0.00002, 0.00012, pareto=False),
        variant("int8", "post-training", 624, -0.00008, 0.00006),
        variant("int4", "post-training", 416, -0.0006, 0.0002),
        variant("int4-qat", "qat", 416, -0.0003, 0.0002),
        variant("int2", "post-training", 312, -0.004, 0.0006),
    ]


FAILED = {"ms": None, "flops": None, "gflops_per_s": None, "error": "2 processes are needed"}


def every() -> list[dict[str, Any]]:
    return [
        machine(),
        *(step("train", batch) for batch in (128, 2048, 16384)),
        *(step("infer", batch) for batch in (128, 2048)),
        *(case(name, batch) for name in ("lookup", "mlp", "loss") for batch in (128, 2048)),
        case("exchange", 128, **FAILED),
        *numerics(),
    ]
