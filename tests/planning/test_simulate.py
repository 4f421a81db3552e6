"""The simulator: what must hold whatever the devices are, and counts by hand."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.machines import DEVICE, machine
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.tables import TablesConfig
from dlrm.planning.costs import Device
from dlrm.planning.footprint import Data
from dlrm.planning.network import Link, Network
from dlrm.planning.planned import Planned, World, planned
from dlrm.planning.predict import Predictor
from dlrm.planning.scaling import simulated
from dlrm.planning.simulate import Devices, Step, bounds, step_of
from dlrm.planning.times import Rates, calibrated, times
from dlrm.planning.work import Shape
from dlrm.schema import Schema
from dlrm.training.config import EvalConfig, TrainConfig

BATCH, DIM = 4096, 16
MODEL = DLRMConfig(dim=DIM, bottom=(32,), top=(64,))
FULL = Device.described(flops=1e12, memory_bandwidth=1e11)
WORLDS = st.sampled_from([1, 2, 3, 4, 7, 8, 16, 64])
BANDWIDTHS = st.floats(1e8, 1e12)
LATENCIES = st.floats(0, 1e-3)
DEVICES = st.sampled_from([FULL, DEVICE])


def run(
    world: int, sharding: str = "auto", rows: tuple[int, ...] = (), model: DLRMConfig = MODEL
) -> Planned:
    schema = Schema.one_hot(4, rows or [10 ** (1 + t % 6) for t in range(12)])
    config = TrainConfig(model=model, precision="fp32")
    config = replace(config, loader=replace(config.loader, batch_size=BATCH))
    worlds = World(size=world, memory_bytes=1 << 50, sharding=sharding)  # pyright: ignore[reportArgumentType]
    return planned(config, Data(schema, {"train": 10 * BATCH}, {}), worlds)


def step(run: Planned, network: Network, device: Device = FULL, **given: object) -> Step:
    found = step_of(run, Devices(device, network, **given))  # pyright: ignore[reportArgumentType]
    assert found is not None
    return found


@given(
    WORLDS,
    BANDWIDTHS,
    st.floats(1, 100),
    LATENCIES,
    st.sampled_from([1, 2, 8]),
    st.sampled_from(["auto", "table", "row", "column", "replicate"]),
    st.booleans(),
)
@settings(deadline=None, max_examples=20)
def test_a_better_link_is_never_slower(world, bandwidth, better, latency, near, sharding, overlap):
    plan = run(world, sharding)

    def took(bandwidth: float, latency_s: float, host: float) -> float:
        links = Network(Link(bandwidth, latency_s), None, near, Link(host, latency_s))
        return step(plan, links, overlap=overlap).total_s

    worst = took(bandwidth, latency, bandwidth)
    for other in (
        took(bandwidth * better, latency, bandwidth),
        took(bandwidth, latency / better, bandwidth),
        took(bandwidth, latency, bandwidth * better),
    ):
        assert other <= worst * (1 + 1e-9)


@given(WORLDS, BANDWIDTHS, LATENCIES, st.booleans(), st.floats(1, 8), DEVICES)
@settings(deadline=None, max_examples=20)
def test_parts_are_not_negative_and_slower_devices_are_not_faster(
    world, bandwidth, latency, overlap, slowdown, device
):
    plan, links = run(world), Network(Link(bandwidth, latency))
    found = step(plan, links, device, overlap=overlap)
    assert min(asdict(found).values()) >= -1e-12
    assert step(plan, links, device, overlap=False).total_s >= found.total_s - 1e-12
    slower = step(plan, links, device, overlap=overlap, slowdown=slowdown)
    assert slower.total_s >= found.total_s - 1e-12
    least = bounds(plan, Devices(device, links))
    assert least is not None
    assert least.least_s <= found.total_s * (1 + 1e-9)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
def test_one_device_takes_what_the_model_of_the_machine_predicts(storage):
    plan = run(1, model=replace(MODEL, tables=TablesConfig(storage=storage)))
    found = step(plan, Network(Link(1e9, 1.0)), DEVICE)
    assert (found.ids_s, found.vectors_s, found.sums_s, found.waiting_s) == (0, 0, 0, 0)
    assert found.routing_s == 0
    of = Predictor(machine(), plan.config, plan.data.schema, train=True)
    assert found.total_s == pytest.approx(of.step_s(of.parts(Shape(BATCH, 1.0, "zipf"))))


def test_who_has_all_tables_is_waited_for():
    plan, links = run(4, "table", rows=(100_000,)), Network(Link(1e9))
    found = step(plan, links)
    alone = step(run(1, rows=(100_000,)), links)
    dense = 12 * plan.contents.dense_bytes / 4 / 1e11 + 2 * plan.contents.dense_bytes / 4 / 1e12
    tables = alone.lookup_s + alone.update_s - dense
    assert found.waiting_s == pytest.approx(tables * 3 / 4)
    # Vectors of all samples leave one device, but for those of its own.
    vectors_s = step(plan, links, overlap=False).vectors_s
    assert vectors_s == pytest.approx(2 * BATCH * 3 / 4 * DIM * 4 / 1e9)


def test_a_described_device_moves_rows_and_multiplies_at_its_rates():
    rows = 10**9
    found = step(run(1, rows=(rows, rows)), Network(Link(1e9)))
    # Hardly a row is looked up twice: each is read, read again and written; ids, numbers of rows
    # and vectors are read or written in order, as are gradients.
    looked_up = 2 * BATCH
    lookup = looked_up * (4 + 8 + 4 * DIM + 4 * DIM)
    assert found.lookup_s == pytest.approx(lookup / 1e11, rel=0.02)
    layers = 2 * (3 * (4 * 32 + 32 * DIM) - 4 * 32)
    assert found.bottom_s >= BATCH * layers / 1e12


def test_sums_and_exchanges_by_hand():
    links = Network(Link(1e9, 1e-3))
    # Two messages of half, there and back; or the whole, once.
    assert links.sum_s(8e6, 2) == pytest.approx(1e-3 + 8e-3)
    assert links.sum_s(8e6, 4) == pytest.approx(4e-3 + 1.5 * 8e-3)
    assert links.exchange_s(8e6, 4) == pytest.approx(min(3e-3 + 8e-3, 2 * (1e-3 + 16e-3 / 3)))
    # With much latency and few bytes, few messages.
    assert links.exchange_s(8, 1024) == pytest.approx(10e-3, rel=1e-3)
    # All on one host never use the link between hosts.
    near = Network(Link(1.0, 1.0), devices_per_host=8, host=Link(1e9, 0.0))
    assert near.exchange_s(8e6, 8) == pytest.approx(8e-3)
    assert near.sum_s(8e6, 8) == pytest.approx(2 * 7 / 8 * 8e-3)
    assert replace(near, host=None).exchange_s(8e6, 8) > near.exchange_s(8e6, 8)


def test_a_thousand_tables_on_a_thousand_devices_are_simulated():
    links = Network(Link(25e9, 5e-6), None, 8, Link(300e9, 5e-6))
    plan = run(1024, rows=tuple(10 ** (1 + t % 6) for t in range(1000)))
    assert step(plan, links).total_s > 0


@given(WORLDS, st.floats(1e-4, 10), DEVICES)
@settings(deadline=None, max_examples=10)
def test_a_measured_step_is_what_is_planned_and_simulated(world, step_s, device):
    plan = run(world)
    scaled = calibrated(plan, device, step_s)
    alone = replace(plan.config.loader, batch_size=-(-BATCH // world))
    config = replace(plan.config, loader=alone)
    single = planned(config, plan.data, replace(plan.world, size=1))
    assert step(single, Network(Link(1.0)), scaled).total_s == pytest.approx(step_s)
    devices = Devices(scaled, Network(Link(25e9, 5e-6)))
    rates = Rates(step_s, 1e-6, 1e-6, 1e-3, 1e-9, False, "zipf")
    found = times(plan, devices, rates)
    assert found is not None
    most = 1 << (world.bit_length() - 1)
    same = [each.step for each in simulated(plan, lambda _: devices, most=most)]
    if most == world:
        assert same[-1] is not None
        assert found.step_s == same[-1].total_s
    assert found.train_s == pytest.approx(10 * found.step_s)


@pytest.mark.parametrize(
    ("evaluation", "count"),
    [({}, 10), ({"per_epoch": 2}, 2), ({"min_steps": 40}, 0.25), ({"every": 3}, 4)],
)
def test_a_plan_counts_the_evaluations_and_checkpoints_that_the_run_makes(evaluation, count):
    # An epoch has ten steps.
    plan = run(1)
    config = replace(plan.config, eval=EvalConfig(**evaluation))
    samples = {"train": 10 * BATCH, "validation": 1000}
    plan = planned(config, Data(plan.data.schema, samples, {}), plan.world)
    rates = Rates(1e-3, 1e-6, 0.0, 1e-3, 0.0, False, "zipf")
    found = times(plan, Devices(DEVICE, Network(Link(25e9, 5e-6))), rates)
    assert found is not None
    assert found.evaluation_s == pytest.approx(count * 1000 * rates.evaluation_s)
    assert found.saving_s == pytest.approx(count * rates.save_s)


def test_processes_share_what_the_machine_can_do():
    one, two, many = (DEVICE.shared(count).ceilings for count in (1, 2, 64))
    assert one.copy == {1: 60e9}
    assert two.copy == many.copy == {1: 55e9}
    assert two.flops["fp32"] == {1: 100e9}
    assert one.row_s(1 << 30, 64) == pytest.approx(1.9 * DEVICE.ceilings.row_s(1 << 30, 64))
    assert two.row_s(1 << 30, 64) == pytest.approx(2 * DEVICE.ceilings.row_s(1 << 30, 64))
