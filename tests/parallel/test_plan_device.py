"""Amounts with units, and the time of a step at given rates."""

import pytest
import torch

from dlrm.errors import ConfigError
from dlrm.models import DLRMConfig
from dlrm.planning.arithmetic import Arithmetic
from dlrm.planning.device import Device, sample_bytes, step_time
from dlrm.planning.placement import plan
from dlrm.planning.quantities import quantity
from dlrm.planning.tables import contents
from dlrm.planning.traffic import traffic
from dlrm.schema import Schema


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


SCHEMA = Schema.one_hot(1, [100_000] * 4)


def test_a_step_is_its_operations_its_bytes_and_what_travels():
    cost = Arithmetic(flops=1000.0, forward_flops=300.0, activations_bytes=100.0)
    with torch.device("meta"):
        model = DLRMConfig(dim=8).build(SCHEMA)
    kept = contents(model, "sgd")
    made = plan(kept.tables, 2, sharding="table")
    sent = traffic(made)
    device = Device(flops=1e6, memory_bandwidth=1e9, bandwidth=1e8)
    step = step_time(device, made, sent, cost, kept, batch_size=64, storage="fp32", optimizer="sgd")
    assert step.compute_s == pytest.approx(32 * 1000 / 1e6)
    # Rows are read, read and written again, and their gradient is read: two tables' on a device.
    rows, activations = 64 * 2 * 8 * 16, 32 * 4 * 100
    assert step.memory_s == pytest.approx((rows + activations + 6 * kept.dense_bytes) / 1e9)
    # Half of the samples are elsewhere: their ids, vectors, and gradients, of two tables.
    assert step.exchange_s == pytest.approx(64 / 2 * 2 * (4 + 32 + 32) / 1e8)
    assert step.least_s < step.total_s
    assert sample_bytes(made, cost, "fp32", "sgd") == 4 * 8 * 16 + 4 * 100
    assert sample_bytes(made, cost, "bf16", "adam") == 4 * 8 * (10 + 16) + 4 * 100
