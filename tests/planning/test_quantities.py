"""Amounts, durations and counts with units."""

import pytest

from dlrm.errors import ConfigError
from dlrm.planning.quantities import counts, duration, quantity, words


def test_amounts():
    for text, value in (
        ("80GB", 80e9),
        ("16GiB", 16 * 2**30),
        ("16 gib", 16 * 2**30),
        ("1.5 TB", 1.5e12),
        ("25GB/s", 25e9),
        ("512k", 512_000),
        ("123456", 123_456),
        ("1e9B", 1e9),
    ):
        assert quantity(text, "B", "f") == value
    assert quantity("60TFLOPS", "FLOP", "f") == 60e12
    assert quantity("1.2 PFLOP/s", "FLOP", "f") == 1.2e15
    for wrong in ("", "GB", "-1GB", "0", "80XB", "80 apples", "1.2.3GB", "16iB"):
        with pytest.raises(ConfigError, match="device-memory is"):
            quantity(wrong, "B", "device-memory")


def test_durations():
    assert duration("1.5 ms", "latency") == pytest.approx(1.5e-3)
    for wrong in ("", "5", "-1us", "5 apples"):
        with pytest.raises(ConfigError, match="latency is"):
            duration(wrong, "latency")


def test_counts():
    assert counts("rows", "250k, 1M,0.5M,2G,300") == [250_000, 10**6, 500_000, 2 * 10**9, 300]
    assert counts("widths", "512-256-64", between="-") == [512, 256, 64]
    assert counts("threads", "0,2", least=0) == [0, 2]
    assert words("uniform, zipf,uniform") == ["uniform", "zipf"]
    for wrong in ("", "0", "-1", "1.5", "1e400", "many", "nan", "5 apples", "1,,2", "k"):
        with pytest.raises(ConfigError, match=f'batch is "{wrong}": ".*" is no whole number'):
            counts("batch", wrong)
