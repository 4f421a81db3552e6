"""Another machine: the words it is asked with, and what they make of a step."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm.errors import ConfigError
from dlrm.planning.what_if import (
    CHOICES,
    Change,
    WhatIf,
    best,
    machines,
    read,
    verdict,
)

HERE: dict[str, Any] = {"cores": 2, "copy": 40e9, "cache_bytes": 32 * 2**20}
TERMS = ("calls_ms", "compute_ms", "stream_ms", "latency_ms", "transfer_ms")


def operator(name: str, *terms: float, bound: str = "compute") -> dict[str, Any]:
    return {
        "name": name,
        "ms": sum(terms),
        "share": 0.5,
        "roofline_share": 0.8,
        "bound": bound,
        "terms": dict(zip(TERMS, terms, strict=True)),
        "cache": [[0.5, 1.2], [1.0, 1.0], [2.0, 0.6]],
        "precision": {"bf16": 0.5},
        "rows": {"bf16": 0.8},
    }


ROW: dict[str, Any] = {
    "batch_size": 2048,
    "step_ms": 12.0,
    "predicted_ms": 9.0,
    "exponents": {"compute": 1.0, "stream": 0.5, "latency": 0.8},
    "operators": [
        operator("top MLP", 0.5, 6.0, 1.5, 0.0, 0.0),
        operator("update", 0.5, 0.0, 0.5, 2.0, 1.0, bound="memory latency"),
    ],
}


def test_changes_are_read() -> None:
    found = read("bandwidth=2x, cores=4,cache=64MiB,precision=int8,rows=bf16,latency=0.5x", **HERE)
    assert found == WhatIf(
        cores=2.0, bandwidth=2.0, cache=2.0, latency=0.5, precision="int8", rows="bf16"
    )
    assert found.to_dict()["cores"] == 2.0
    assert read("bandwidth=80GB/s,flops=3x,cores=3x", **HERE) == WhatIf(
        bandwidth=2.0, flops=3.0, cores=3.0
    )
    assert WhatIf().to_dict() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus=2", 'unknown what-if "gpus"; choose one of: cores, bandwidth'),
        ("precision=int3", 'unknown what-if precision "int3"; choose one of: fp32, bf16, int8'),
        ("rows=fp8", 'unknown what-if rows "fp8"; choose one of: fp32, bf16, int8, int4'),
        ("cores", 'what-if cores has no value; write for example "cores=4"'),
        ("cores=many", 'what-if cores is "many", expected a number of cores, or 2x'),
        ("cores=0", 'what-if cores is "0"'),
        ("flops=2", 'what-if flops is "2", expected a factor such as 2x'),
        ("bandwidth=-2x", 'what-if bandwidth is "-2x", expected a positive factor'),
        ("latency=nanx", 'what-if latency is "nanx"'),
        ("cache=some", 'what-if cache is "some", expected a positive amount'),
        ("", 'unknown what-if ""'),
    ],
)
def test_what_has_no_meaning_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(text, **HERE)
    assert message in str(error.value)


def test_nothing_changed_takes_as_long() -> None:
    assert WhatIf().step_ms(ROW) == pytest.approx(12.0)
    assert WhatIf(precision="fp32", rows="int8").step_ms(ROW) == pytest.approx(12.0)


def test_changes_by_hand() -> None:
    assert WhatIf(flops=2.0).step_ms(ROW) == pytest.approx(9.0)
    assert WhatIf(bandwidth=2.0).step_ms(ROW) == pytest.approx(12 - (1.5 + 0.5 + 1.0) / 2)
    assert WhatIf(latency=0.5).step_ms(ROW) == pytest.approx(11.0)
    assert WhatIf(cache=2.0).step_ms(ROW) == pytest.approx(12 - 0.4 * 3)
    assert WhatIf(cache=2**0.5).step_ms(ROW) == pytest.approx(12 - 0.2 * 3)
    assert WhatIf(cache=64.0).step_ms(ROW) == WhatIf(cache=2.0).step_ms(ROW)
    cores = 1 + 3.0 + (1.5 + 0.5 + 1.0) / 2**0.5 + 2.0 / 2**0.8
    assert WhatIf(cores=2.0).step_ms(ROW) == pytest.approx(cores)
    assert WhatIf(precision="bf16", rows="bf16").step_ms(ROW) == pytest.approx(12 * 0.4)


FACTORS = st.floats(1.0, 64.0)


@given(FACTORS, FACTORS, FACTORS, FACTORS, *map(st.sampled_from, CHOICES.values()))
def test_more_never_takes_longer_than_less(
    cores: float, bandwidth: float, flops: float, cache: float, precision: str, rows: str
) -> None:
    change = WhatIf(
        cores=cores, bandwidth=bandwidth, flops=flops, cache=cache, precision=precision, rows=rows
    )
    assert change.step_ms(ROW) <= 12.0 + 1e-9
    # What is spent on calls stays.
    assert change.step_ms(ROW) >= 1.0 * 0.4


def test_the_verdict_names_what_takes_longest_and_what_helps_most() -> None:
    changes = best([*machines(ROW), Change("bf16 products", "--precision bf16", 1.5)])
    assert [change.gain for change in changes] == sorted(
        (change.gain for change in changes), reverse=True
    )
    said = verdict(ROW, changes, 0.09)
    assert said.startswith("A step of 2,048 takes 12 ms: top MLP takes 50%, bound by compute (80%")
    assert "update takes 50%, bound by memory latency" in said
    assert "1.50x by bf16 products (--precision bf16)" in said
    assert f"{changes[0].gain:.2f}x by {changes[0].what}" in said
    assert said.endswith("predicted by a model that is 9% off in the median, 25% here.")


def test_where_nothing_helps_the_verdict_says_so() -> None:
    idle = {**ROW, "operators": [operator("loss", 12.0, 0, 0, 0, 0, bound="calls")]}
    assert best(machines(idle)) == []
    said = verdict(idle, [], 0.1)
    assert "No single change predicts more than 3%" in said
    assert "of its roofline" not in said
