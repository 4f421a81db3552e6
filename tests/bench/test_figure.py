"""What a row of results is a measurement of, and what it found."""

from pathlib import Path

import pytest

from dlrm.bench.figure import Figure, figures, key, operators, settings
from dlrm.bench.results import load

KEPT = Path(__file__).parents[2] / "benchmarks" / "results"
PROVENANCE = {
    "schema": 1, "commit": "abc", "dlrm": "0.1.0", "python": "3.11.7", "torch": "2.13.0",
    "numpy": "2.4", "polars": "2.1", "cpu": "AMD EPYC", "cores": 2, "threads": 2, "load": 0.1,
    "steal_share": 0.0, "others_share": 0.0, "system": "Linux", "machine": "0123456789ab",
    "seed": 0, "products": {"mlp fp32 below 512": "avx512"},
    "taken": "2026-12-01T10:00:00+00:00", "command": "dlrm bench train",
}  # fmt: skip
TRAIN = {
    "suite": "train", "arch": "criteo-kaggle", "model": "dlrm", "batch_size": 2048,
    "precision": "bf16", "storage": "fp32", "optim": "sgd", "ids": "uniform", "rows_scale": 0.5,
    "step_ms": 20.0, "step_low": 19.0, "step_high": 21.0, "p95_ms": 25.0, "samples_per_s": 102400.0,
    "roofline_ms": 9.0, "roofline_share": 0.45, "predicted_ms": 19.5, "model_error": 0.09,
    "model_steps": 40, "what_if": "cores=4",
    "operators": [
        {"name": "lookup", "ms": 4.0, "forward_ms": 4.0, "backward_ms": 0.0},
        {"name": "update", "ms": 9.0, "ms_low": 8.0, "ms_high": 10.0},
        {"name": "other", "ms": None},
    ],
    "exponents": {"compute": 1.0}, "tables": [{"name": "C1", "bytes": 64, "row_bytes": 64}],
    "verdict": "bound by memory latency", "changes": [], **PROVENANCE,
}  # fmt: skip
OPS = {
    "suite": "ops", "operator": "lookup", "batch": 128, "tables": 8, "rows": 1000, "dim": 16,
    "pooling": 1.5, "ids": "zipf", "precision": "fp32", "storage": "fp32", "optim": None,
    "widths": [512, 256], "ms": 1.0, "ms_low": 0.9, "ms_high": 1.2, "p95_ms": 1.3, "warm_ms": 0.5,
    "flops": 0, "bytes": 1024, "lines": 128, "gflops_per_s": 0.0, "gb_per_s": 10.0,
    "roofline_ms": 0.5, "roofline_share": 0.5, "bound": "memory latency", "error": None,
    **PROVENANCE,
}  # fmt: skip
CEILINGS = {
    "suite": "machine", "facts": {"cpu": "AMD EPYC"}, "costs": None,
    "ceilings": {
        "threads": 2, "copy": {"1": 2e10, "2": 4e10}, "flops": {"fp32": {"2": 2e11}},
        "gather": [{"row_bytes": 64, "table_bytes": 1024, "row_s": 2e-9},
                   {"row_bytes": 64, "table_bytes": 4096, "row_s": 5e-9}],
        "gather_by_threads": {"1": 1e8, "2": 2e8}, "call_s": 1e-6,
        "spread": {"copy 2": 0.1, "fp32 2": 0.05, "gather 64 1024 2": 0.5, "gather 64 4096 1": 0.1},
    },
    **PROVENANCE,
}  # fmt: skip


def test_settings_are_what_was_measured_and_with_how_many_threads() -> None:
    assert settings(TRAIN) == {
        "suite": "train", "arch": "criteo-kaggle", "model": "dlrm", "batch_size": 2048,
        "precision": "bf16", "storage": "fp32", "optim": "sgd", "ids": "uniform",
        "rows_scale": 0.5, "threads": 2,
    }  # fmt: skip
    assert settings(OPS) == {
        "suite": "ops", "operator": "lookup", "batch": 128, "tables": 8, "rows": 1000, "dim": 16,
        "pooling": 1.5, "ids": "zipf", "precision": "fp32", "storage": "fp32",
        "widths": [512, 256], "threads": 2,
    }  # fmt: skip
    assert settings(CEILINGS) == {"suite": "machine", "threads": 2}


@pytest.mark.parametrize("row", [TRAIN, OPS, CEILINGS])
def test_provenance_and_findings_are_no_settings(row: dict) -> None:
    names = set(PROVENANCE) - {"schema", "threads"}
    other = dict.fromkeys((*names, "verdict", "bound", "error", "reason"), "other")
    assert key({**row, **other, "step_ms": 1.0, "samples_per_s": 2, "more_share": 1}) == key(row)
    assert key({**row, "threads": 1}) != key(row)
    assert key({**row, "batch_size": 1}) != key(row)
    assert key(dict(reversed(row.items()))) == key(row)


def test_a_null_is_the_same_as_nothing_said() -> None:
    assert key({**TRAIN, "placement": None}) == key(TRAIN)


def test_figures_are_what_was_timed() -> None:
    # Samples/s say the step again, without an interval; the roofline and the model are no clock.
    assert figures(TRAIN) == {"step_ms": Figure(20.0, 19.0, 21.0), "p95_ms": Figure(25.0)}
    assert figures(OPS) == {
        "ms": Figure(1.0, 0.9, 1.2),
        "p95_ms": Figure(1.3),
        "warm_ms": Figure(0.5),
    }
    assert figures({"suite": "ops", "ms": None, "ms_low": None, "error": "no room"}) == {}


def test_operators_are_figures_too() -> None:
    assert operators(TRAIN) == {"lookup": Figure(4.0), "update": Figure(9.0, 8.0, 10.0)}
    assert operators(OPS) == {}


def test_what_a_machine_can_do_are_figures_with_a_spread() -> None:
    assert figures(CEILINGS) == {
        "copy 1": Figure(2e10, None, None, "rate"),
        "copy 2": Figure(4e10, 4e10 * 0.9, 4e10 * 1.1, "rate"),
        "fp32 2": Figure(2e11, 2e11 * 0.95, 2e11 * 1.05, "rate"),
        "gather 64 1024 2_s": Figure(2e-9, 2e-9 * 0.5, 2e-9 * 1.5),
        "gather 64 4096 1": Figure(1e8, 1e8 * 0.9, 1e8 * 1.1, "rate"),
        # The same as the last point of the curve, said as a rate.
        "gather 64 4096 2": Figure(2e8, None, None, "rate"),
        "call_s": Figure(1e-6),
    }


def test_parts_that_are_missing_or_something_else_are_left_out() -> None:
    assert operators({**TRAIN, "operators": None}) == {}
    assert operators({**TRAIN, "operators": [{"ms": 1.0}, 3, {"name": "a"}]}) == {}
    found = figures({**CEILINGS, "ceilings": {"copy": {"1": 2e10, "2": None}, "spread": None}})
    assert found == {"copy 1": Figure(2e10, None, None, "rate")}


@pytest.mark.parametrize(
    ("row", "name", "found"),
    [
        ({"ours_ms": 2, "ours_interval": [1, 3]}, "ours_ms", Figure(2.0, 1.0, 3.0)),
        ({"duration_s": 2, "duration_low_s": 1, "duration_high_s": 3}, "duration_s",
         Figure(2.0, 1.0, 3.0)),
        ({"lines_per_s": 2, "lines_per_s_low": 1, "lines_per_s_high": 3}, "lines_per_s",
         Figure(2.0, 1.0, 3.0, "rate")),
        ({"auc_change": -1e-4, "auc_change_low": -2e-4, "auc_change_high": 0.0}, "auc_change",
         Figure(-1e-4, -2e-4, 0.0, "accuracy")),
        # Of one round nobody knows the spread.
        ({"ours_ms": 2, "ours_interval": [2, 2]}, "ours_ms", Figure(2.0)),
        ({"ours_ms": 2, "ours_interval": "wide"}, "ours_ms", Figure(2.0)),
    ],
)  # fmt: skip
def test_intervals_are_found_by_name(row: dict, name: str, found: Figure) -> None:
    assert figures({"suite": "any", **row}) == {name: found}


@pytest.mark.parametrize("name", ["ours_ms", "step_ms"])
@pytest.mark.parametrize("value", [None, True, "fast", [1.0]])
def test_what_is_no_number_is_no_figure(name: str, value: object) -> None:
    assert figures({"suite": "any", name: value}) == {}


@pytest.mark.parametrize("path", sorted(KEPT.rglob("*.jsonl")), ids=lambda path: path.stem)
def test_the_rows_that_are_kept_are_understood(path: Path) -> None:
    for row in load(path):
        found = settings(row)
        assert found["suite"] == row["suite"]
        assert "commit" not in found
        assert not set(found) & set(figures(row))


def test_a_name_that_provenance_took_later_is_a_setting_of_rows_of_before() -> None:
    old = {"suite": "simulate-published", "machine": "DGX-1", "devices": 1}
    assert settings(old)["machine"] == "DGX-1"
    assert "machine" not in settings({**old, "schema": 1})
