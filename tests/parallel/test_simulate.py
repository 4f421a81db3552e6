"""The simulator: what must hold whatever was measured."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.commands.plan_simulate import network as network_of
from dlrm.commands.plan_simulate import seconds
from dlrm.errors import ConfigError
from dlrm.planning.network import Link, Network
from dlrm.planning.placement import Table, plan
from dlrm.planning.simulate import Curve, Operators, Rows, Step, rising, simulate
from dlrm.planning.traffic import traffic

ROUTING = Rows(Curve(((100.0, 2e-5), (10_000.0, 1e-3))), 16)
OPERATORS = Operators(
    bottom=Curve(((128.0, 1e-3), (1024.0, 5e-3))),
    top=Curve(((128.0, 2e-3), (1024.0, 9e-3))),
    dense_update_s=3e-4,
    lookup=Rows(Curve(((100.0, 1e-5), (10_000.0, 5e-4))), 16, 0.5),
    update=Rows(Curve(((100.0, 2e-5), (10_000.0, 9e-4))), 16, 0.3),
    routing={"table": ROUTING, "row": ROUTING, "column": ROUTING},
)
WORLDS = st.sampled_from([1, 2, 3, 4, 7, 8, 16, 64])
BANDWIDTHS = st.floats(1e8, 1e12)
LATENCIES = st.floats(0, 1e-3)


def tables(count: int, pooling: float = 1.0) -> list[Table]:
    return [Table(f"C{t}", 10 ** (1 + t % 6), 16, 64, pooling) for t in range(count)]


def step(
    world: int, network: Network, sharding: str = "auto", count: int = 12, **given: object
) -> Step:
    made = plan(tables(count), world, sharding=sharding, batch_size=4096)  # pyright: ignore[reportArgumentType]
    sent = traffic(made, dense_bytes=2_000_000)
    return simulate(
        OPERATORS,
        made,
        sent,
        network,
        batch_size=4096,
        dense_bytes=2_000_000,
        **given,  # pyright: ignore[reportArgumentType]
    )


@given(
    WORLDS,
    BANDWIDTHS,
    st.floats(1, 100),
    LATENCIES,
    st.sampled_from([1, 2, 8]),
    st.sampled_from(["auto", "table", "row", "column", "replicate"]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_a_better_link_is_never_slower(world, bandwidth, better, latency, near, sharding, overlap):
    def took(bandwidth: float, latency_s: float, host: float) -> float:
        links = Network(Link(bandwidth, latency_s), None, near, Link(host, latency_s))
        return step(world, links, sharding, overlap=overlap).total_s

    worst = took(bandwidth, latency, bandwidth)
    for other in (
        took(bandwidth * better, latency, bandwidth),
        took(bandwidth, latency / better, bandwidth),
        took(bandwidth, latency, bandwidth * better),
    ):
        assert other <= worst * (1 + 1e-9)


@given(WORLDS, BANDWIDTHS, LATENCIES, st.booleans(), st.floats(1, 8))
@settings(deadline=None, max_examples=60)
def test_parts_are_not_negative_and_slower_devices_are_not_faster(
    world, bandwidth, latency, overlap, slowdown
):
    links = Network(Link(bandwidth, latency))
    found = step(world, links, overlap=overlap)
    assert min(asdict(found).values()) >= -1e-12
    assert found.total_s == pytest.approx(sum(asdict(found).values()))
    assert step(world, links, overlap=False).total_s >= found.total_s - 1e-12
    assert step(world, links, overlap=False, slowdown=slowdown).total_s >= found.total_s - 1e-12


def test_one_device_waits_for_nobody_and_sends_nothing():
    found = step(1, Network(Link(1e9, 1.0)))
    assert (found.ids_s, found.vectors_s, found.sums_s, found.waiting_s) == (0, 0, 0, 0)
    assert found.routing_s == 0
    expected = OPERATORS.bottom(4096) + OPERATORS.top(4096) + OPERATORS.dense_update_s
    expected += OPERATORS.lookup(12 * 4096, 12 * 4096 * 16)
    expected += OPERATORS.update(12 * 4096, 12 * 4096 * 16)
    assert found.total_s == pytest.approx(expected)


def test_who_has_all_tables_is_waited_for():
    made = plan([Table("C", 100_000, 16, 64)], 4, sharding="table")
    sent = traffic(made)
    links = Network(Link(1e9))
    found = simulate(OPERATORS, made, sent, links, batch_size=4096, dense_bytes=0)
    work = OPERATORS.lookup(4096, 4096 * 16) + OPERATORS.update(4096, 4096 * 16)
    assert found.waiting_s == pytest.approx(work * 3 / 4)
    # Vectors of all samples leave one device, but for those of its own.
    slow = simulate(
        OPERATORS, made, sent, links, batch_size=4096, dense_bytes=0, overlap=False
    ).vectors_s
    assert slow == pytest.approx(2 * 4096 * 3 / 4 * 16 * 4 / 1e9)


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


@given(
    st.lists(
        st.tuples(st.floats(1, 1e6), st.floats(1e-9, 10)),
        min_size=1,
        max_size=5,
        unique_by=lambda point: point[0],
    ),
    st.floats(0, 1e7),
    st.floats(0, 1e7),
)
@settings(deadline=None)
def test_more_never_takes_less(points, one, other):
    curve = rising(points)
    low, high = sorted((one, other))
    assert 0 <= curve(low) <= curve(high) * (1 + 1e-9)
    assert curve(curve.points[0][0]) == pytest.approx(curve.points[0][1])
    assert curve(curve.points[-1][0]) == pytest.approx(curve.points[-1][1])


def test_narrow_rows_cost_less_but_not_nothing():
    rows = Rows(Curve(((1.0, 2e-6),)), 16, 0.5)
    assert rows(10, 160) == pytest.approx(20e-6)
    assert rows(10, 80) == pytest.approx(15e-6)
    assert rows(0, 0) == 0


def test_a_thousand_tables_on_a_thousand_devices_are_simulated():
    links = Network(Link(25e9, 5e-6), None, 8, Link(300e9, 5e-6))
    found = step(1024, links, count=1000)
    assert found.total_s > 0


def test_flags_of_a_network():
    assert network_of(None, None, 1, None) is None
    made = network_of("25GB/s", "5us", 8, "300GB/s")
    assert made is not None
    assert made.host is not None
    assert (made.exchanges.bandwidth, made.host.bandwidth) == (25e9, 300e9)
    assert (made.devices_per_host, made.sums) == (8, None)
    assert made.exchanges.latency_s == made.host.latency_s == pytest.approx(5e-6)
    assert seconds("1.5 ms", "latency") == pytest.approx(1.5e-3)
    for wrong in ("", "5", "-1us", "5 apples"):
        with pytest.raises(ConfigError, match="latency is"):
            seconds(wrong, "latency")
    with pytest.raises(ConfigError, match="--link"):
        network_of(None, "5us", 1, None)
    with pytest.raises(ConfigError, match="devices-per-host is 0"):
        network_of("25GB/s", None, 0, None)
    assert replace(made, host=None).exchange_s(1e9, 8) > made.exchange_s(1e9, 8)
