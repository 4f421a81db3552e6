"""What a machine is and can do: facts from files, ceilings with hardly any time, what is kept."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import tiny
from dlrm.bench import machine as measuring
from dlrm.bench import probe as probes
from dlrm.bench.known import here as made
from dlrm.bench.probe import Probe, Way
from dlrm.errors import ConfigError
from dlrm.planning import facts as of_machine
from dlrm.planning import machine
from dlrm.planning.ceilings import SUMMED, Ceilings, GatherPoint
from dlrm.planning.costs import Costs
from dlrm.planning.facts import Cache, Facts, cpu_name, facts, read
from dlrm.planning.machine import Machine, load, save

CPUINFO = """\
processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu sse2 hypervisor avx2 fma avx512f avx512_bf16 avx512_vnni

processor\t: 1
model name\t: AMD EPYC
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd i8mm sve bf16\n"

FACTS = Facts(
    cpu="AMD EPYC",
    cores=8,
    instructions=("avx2", "fma"),
    caches=(Cache(1, 2**15, 1, 8), Cache(3, 2**25, 4, 2)),
    memory_bytes=25_276_510_208,
    virtual=True,
    counters=("cycles",),
)
CEILINGS = Ceilings(
    threads=2,
    copy={1: 40e9, 2: 80e9},
    flops={"fp32": {1: 250e9, 2: 460e9}},
    gather=(
        GatherPoint(64, 2**16, 1e-9),
        GatherPoint(64, 2**20, 4e-9),
        GatherPoint(512, 2**16, 8e-9),
        GatherPoint(512, 2**20, 32e-9),
    ),
    gather_by_threads={1: 125e6, 2: 250e6},
    call_s=5e-7,
    spread={"copy 2": 0.05},
)
COSTS = Costs({"layers": (1.5,) * 5})
MACHINE = Machine(FACTS, CEILINGS, {"torch": "2.13.0"}, "2026-01-01T00:00:00+00:00", COSTS)


@pytest.fixture
def cpus(tmp_path: Path) -> Path:
    """Eight cores: an L1 each, of data and of instructions, an L3 for four, and one file spoilt."""
    for core in range(8):
        block = "0-3" if core < 4 else "4-5,6-7"
        for index, (level, kind, size, users) in enumerate(
            [
                ("1", "Data", "48K", str(core)),
                ("1", "Instruction", "32K", str(core)),
                ("2", "Unified", "unknown", str(core)),
                ("3", "Unified", "32M", block),
            ]
        ):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("type", kind), ("size", size)):
                (folder / name).write_text(f"{text}\n")
            (folder / "shared_cpu_list").write_text(f"{users}\n")
    return tmp_path


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        machine, "_path", lambda *name: tmp_path / "machines" / "{}-{}.json".format(*name)
    )
    return tmp_path / "machines"


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch, apart: Path) -> None:
    tiny.measured(monkeypatch, apart)


def test_facts_are_what_the_files_say(cpus: Path) -> None:
    cpuinfo = cpus / "cpuinfo"
    cpuinfo.write_text(CPUINFO)
    found = read(cpuinfo, cpus, set(range(8)))
    assert (found.cpu, found.cores, found.virtual) == ("AMD EPYC", 8, True)
    assert found.instructions == ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16")
    assert found.caches == (Cache(1, 48 * 2**10, 1, 8), Cache(3, 32 * 2**20, 4, 2))
    assert found.caches[1].total_bytes == 64 * 2**20
    assert found.last_level == found.caches[1]


def test_a_brand_alone_is_told_apart_by_family_and_model(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    kind = "cpu family\t: 25\nmodel\t\t: 17\n"
    for name, expected in (
        ("AMD EPYC", "AMD EPYC family 25 model 17"),
        ("AMD EPYC 9B45", "AMD EPYC 9B45"),
    ):
        cpuinfo.write_text(f"{kind}model name\t: {name}\n")
        assert cpu_name(cpuinfo) == expected


def test_only_the_cores_of_this_process_count(cpus: Path) -> None:
    found = read(cpus / "cpuinfo", cpus, {0, 1})
    assert found.cores == 2
    assert found.caches == (Cache(1, 48 * 2**10, 1, 2), Cache(3, 32 * 2**20, 4, 1))


def test_what_the_system_does_not_tell_is_left_out(tmp_path: Path) -> None:
    found = read(tmp_path / "no", tmp_path / "none", {0})
    assert (found.instructions, found.caches, found.virtual) == ((), (), None)
    assert found.cpu
    assert found.last_level is None


def test_arm_calls_them_features_and_says_nothing_of_virtual_machines(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(ARM)
    found = read(cpuinfo, tmp_path, {0})
    assert found.instructions == ("asimd", "sve", "i8mm", "bf16")
    assert found.virtual is None


def test_counters_are_those_that_the_system_lets_us_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_machine, "EVENTS", tmp_path)
    monkeypatch.setattr(of_machine, "PARANOID", tmp_path / "paranoid")
    (tmp_path / "cpu-cycles").write_text("event=0x76\n")
    assert of_machine.readable_counters() == ()
    for level, counters in ((2, ("cycles",)), (3, ())):
        (tmp_path / "paranoid").write_text(f"{level}\n")
        assert of_machine.readable_counters() == counters


def test_equal_hardware_has_an_equal_fingerprint() -> None:
    assert len(FACTS.fingerprint) == 12
    assert int(FACTS.fingerprint, 16) >= 0
    # A kernel keeps a little memory for itself; rights decide who may read counters.
    same = replace(FACTS, memory_bytes=FACTS.memory_bytes - 2**20, counters=())
    assert same.fingerprint == FACTS.fingerprint
    others = [
        replace(FACTS, cpu="AMD EPYC 2"),
        replace(FACTS, cores=4),
        replace(FACTS, instructions=("avx2",)),
        replace(FACTS, caches=FACTS.caches[:1]),
        replace(FACTS, memory_bytes=2**36),
        replace(FACTS, virtual=None),
    ]
    assert len({FACTS.fingerprint, *(other.fingerprint for other in others)}) == 7
    assert facts().fingerprint == facts().fingerprint


def test_everything_survives_json() -> None:
    for value in (FACTS, CEILINGS, MACHINE, facts()):
        assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value
    assert MACHINE.fingerprint == FACTS.fingerprint == FACTS.to_dict()["fingerprint"]


TABLES = st.lists(st.integers(10, 40), min_size=1, max_size=6, unique=True)
SECONDS = st.floats(1e-10, 1e-6)


@given(st.data(), TABLES, st.floats(1, 1e13), st.floats(1, 4096))
def test_a_row_takes_what_lies_between_the_points_around_it(data, powers, table, row) -> None:
    curve = {length: {2**p: data.draw(SECONDS) for p in sorted(powers)} for length in (64, 512)}
    points = [GatherPoint(n, t, s) for n, line in curve.items() for t, s in line.items()]
    can = replace(CEILINGS, gather=tuple(points))
    for point in points:
        longer = max(point.row_s, can.row_s(point.table_bytes, 64))
        assert can.row_s(point.table_bytes, point.row_bytes) == pytest.approx(longer)
    sizes = sorted(curve[64])
    near = [size for size in sizes if size >= table][:1] + [s for s in sizes if s <= table][-1:]
    around = [curve[64][size] for size in near]
    found = can.row_s(table, 64)
    assert min(around) * (1 - 1e-9) <= found <= max(around) * (1 + 1e-9)
    assert can.row_s(table, row) >= can.row_s(table, min(row, 64)) * (1 - 1e-9)


def test_between_sizes_by_logarithms_and_between_lengths_along_a_line() -> None:
    assert CEILINGS.row_s(2**18, 64) == pytest.approx(2e-9)
    assert CEILINGS.row_s(2**16, 288) == pytest.approx(4.5e-9)
    assert CEILINGS.row_s(2**16, 960) == pytest.approx(15e-9)
    # Outside of what was measured.
    assert CEILINGS.row_s(1, 16) == pytest.approx(1e-9)
    assert CEILINGS.row_s(2**40, 64) == pytest.approx(4e-9)
    alone = replace(CEILINGS, gather=CEILINGS.gather[:2])
    assert alone.row_s(2**20, 512) == pytest.approx(4e-9)


def test_every_ceiling_has_a_name() -> None:
    rates = CEILINGS.rates()
    assert rates["copy 2"] == 80e9
    assert rates["fp32 1"] == 250e9
    assert rates["gather 512 65536 2"] == pytest.approx(125e6)
    assert rates["gather 64 1048576 1"] == 125e6
    assert rates["call"] == 2e6


def test_what_is_kept_is_found_again() -> None:
    assert load() is None
    machine = made(replace(CEILINGS, threads=torch.get_num_threads()), COSTS)
    path = save(machine)
    assert load() == machine
    assert load(machine.ceilings.threads + 1) is None
    assert path.name == f"{machine.fingerprint}-{machine.ceilings.threads}.json"
    later = replace(machine, taken="2027-01-01T00:00:00+00:00")
    assert save(later) == path
    assert load() == later


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda _: "null",
        lambda _: "\x00\xff",
        lambda text: text.replace('"schema": 2', '"schema": 1'),
        lambda text: text.replace('"schema"', '"version"'),
        lambda text: text.replace('"copy": {', '"copy": {"one": 2.0, '),
        lambda text: text.replace('"gather": [', '"gather": [7, '),
        lambda text: text.replace(facts().cpu, "another CPU"),
        lambda text: text.replace('"caches": [', '"caches": [{"size": 1}, '),
    ],
)
def test_what_is_damaged_or_foreign_counts_as_not_there(spoil) -> None:
    path = save(made(replace(CEILINGS, threads=torch.get_num_threads())))
    path.write_text(spoil(path.read_text()))
    assert load() is None


def test_a_folder_in_its_place_counts_as_not_there() -> None:
    path = save(made(replace(CEILINGS, threads=torch.get_num_threads())))
    path.unlink()
    path.mkdir()
    assert load() is None


@pytest.mark.usefixtures("little")
def test_all_ceilings_are_measured_and_threads_put_back() -> None:
    before, ticks = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        can = measuring.measure(lambda: ticks.append(1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(ticks) == measuring.TICKS
    assert can.threads == 3
    assert set(can.copy) == set(can.gather_by_threads) == {1, 2, 3}
    assert {"fp32", "bf16"} <= set(can.flops)
    assert all(set(rates) == {1, 2, 3} for rates in can.flops.values())
    assert [(p.row_bytes, p.table_bytes) for p in can.gather] == [
        (row, table) for row in (64, 512) for table in (2**16, 2**17, 2**18)
    ]
    assert [(p.row_bytes, p.table_bytes) for p in can.summed] == [
        (row, table) for row in (64, 512) for table in (2**16, 2**18)
    ]
    rates = can.rates()
    assert all(0 < rate < math.inf for rate in rates.values())
    assert set(can.spread) == set(rates)
    assert all(share >= 0 for share in can.spread.values())
    assert rates["gather 64 262144 3"] == pytest.approx(can.gather_by_threads[3])
    assert Ceilings.from_dict(can.to_dict()) == can


@pytest.mark.usefixtures("little")
def test_gathers_read_rows_of_the_table_that_is_asked_for() -> None:
    store = torch.arange(2**16, dtype=torch.float32)
    all_ = measuring.Gathers(store, 1 << 16)
    for row_bytes in measuring.ROW_BYTES:
        probe = all_.probe(row_bytes, 2**17, 1)
        probe.prepare()
        assert all_.ids.max() < 2**17 // row_bytes
        assert len(all_.ids.unique()) > 2**17 // row_bytes // 2
        for way in probe.ways:
            runs = [way.run() for _ in range(2)]
            rows = [run.clone() for run in runs if isinstance(run, torch.Tensor)]
            assert len(rows) == 2
            for found in rows:
                assert found.shape == (way.amount, row_bytes // 4)
                assert (found[:, 0] % (row_bytes // 4) == 0).all()
                assert found.diff(dim=1).eq(1).all()
                assert found.max() < 2**15


@pytest.mark.usefixtures("little")
def test_sums_add_up_rows_of_the_table_that_is_asked_for() -> None:
    store = torch.arange(2**16, dtype=torch.float32)
    for row_bytes in measuring.ROW_BYTES:
        probe = measuring.Gathers(store, 1 << 16).probe(row_bytes, 2**17, 1, summed=True)
        probe.prepare()
        for way in probe.ways:
            found = way.run()
            assert isinstance(found, torch.Tensor)
            assert found.shape == (way.amount / SUMMED, row_bytes // 4)
            assert (found.diff(dim=1) == SUMMED).all()


@pytest.mark.usefixtures("little")
def test_each_run_reads_other_rows() -> None:
    probe = measuring.Gathers(torch.arange(2**16, dtype=torch.float32), 1 << 16).probe(64, 2**18, 1)
    probe.prepare()
    for way in probe.ways:
        seen = set()
        for _ in range(8):
            found = way.run()
            assert isinstance(found, torch.Tensor)
            seen.add(found.sum().item())
        assert len(seen) == 8


def test_thread_counts_are_powers_of_two_and_all() -> None:
    expected = {1: [1], 2: [1, 2], 3: [1, 2, 3], 8: [1, 2, 4, 8], 48: [1, 2, 4, 8, 16, 32, 48]}
    assert {count: measuring.thread_counts(count) for count in expected} == expected


def test_the_fastest_way_wins_and_those_that_fail_are_left_out(monkeypatch) -> None:
    def fails() -> None:
        raise RuntimeError("not implemented for Char")

    ran: list[str] = []
    slow, fast = (Way(name, 1.0, lambda name=name: ran.append(name)) for name in ("slow", "fast"))

    def unit_s(way: Way, _: float) -> float:
        way.run()
        return 2.0 if way.kind == "slow" else 1.0

    monkeypatch.setattr(probes, "_unit_s", unit_s)
    monkeypatch.setattr(probes, "PATIENCE_S", 10.0)
    assert probes.fastest([slow, Way("fails", 1.0, fails), fast]) is fast
    assert probes.fastest([Way("fails", 1.0, fails)]) is None
    # A slow kind of way is not tried on what would take too long.
    ran.clear()
    probes.fastest([slow, fast, Way("slow", 6.0, lambda: ran.append("large"))])
    assert "large" not in ran


def test_what_fails_has_no_seconds_and_nothing_else_suffers(monkeypatch) -> None:
    def fails() -> None:
        raise RuntimeError("not implemented for Char")

    bad = Probe("int8 1", 1, [Way("rows", 1.0, fails), Way("columns", 1.0, fails)])
    good = Probe("call", 1, [Way("add", 10.0, lambda: None)])
    before = torch.get_num_threads()
    monkeypatch.setattr(probes, "MOST_S", 0.0)
    probes.visit_all([bad, good], lambda _: None)
    assert bad.seconds == []
    assert good.rate > 0
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("rounds", "counted", "quiet"),
    [
        # True: a round in which nothing else computed.
        ([True, True, True], [0, 1, 2], True),
        ([False, True, True, False, True], [1, 2, 4], True),
        # Time runs out after six.
        ([False, True, False, False, False, False], [1], True),
        ([False] * 6, [5], False),
    ],
)
def test_only_quiet_rounds_count(monkeypatch, rounds, counted, quiet) -> None:
    left, at, shares = iter(rounds), [-1], []
    monkeypatch.setattr(probes, "ROUNDS", 3)
    monkeypatch.setattr(probes, "SAMPLES", 1)

    class Asked:
        @property
        def disturbed(self) -> bool:
            return not next(left)

    monkeypatch.setattr(probes, "Watch", lambda: tiny.Fixed(Asked()))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(probes, "_unit_s", lambda *_: float(at[0]))
    times = iter([0.0, *(i * probes.MOST_S / 6 for i in range(1, 7))])
    monkeypatch.setattr(probes, "fastest", lambda ways: ways[0])

    class Numbered(Probe):
        def visit(self) -> None:
            at[0] += 1
            self.seconds.append(float(at[0]))

    monkeypatch.setattr(probes, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    one = Numbered("call", torch.get_num_threads(), [Way("add", 1.0, lambda: None)])
    assert probes.visit_all([one], shares.append) is quiet
    assert one.seconds == counted
    assert shares[-1] == 1.0


def test_rates_and_spreads_are_of_the_seconds() -> None:
    found = Probe("x", 1, [], seconds=[0.1, 0.2, 0.4])
    assert found.rate == pytest.approx(5.0)
    assert 0 < found.spread <= (0.4 - 0.1) / 2 / 0.2
    assert Probe("x", 1, [], seconds=[0.5] * 9).spread == 0.0


def test_a_quarter_of_the_free_memory_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for free in (2**31, 2**32, 2**33, 2**40):
        monkeypatch.setattr(measuring, "free_bytes", lambda free=free: free)
        sizes[free] = size = measuring.store_bytes()
        assert size + measuring.OTHER_BYTES <= free / 4
        assert math.log2(size).is_integer()
    assert sizes[2**40] == measuring.STORE_BYTES
    monkeypatch.setattr(measuring, "free_bytes", lambda: 2**30)
    with pytest.raises(ConfigError, match=r"1.1 GB of memory are free.*needs 1.6 GB"):
        measuring.measure(lambda: None)


def test_free_memory_is_what_the_system_and_the_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(of_machine, "GROUP", tmp_path)
    assert of_machine.free_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:      4 kB\n")
    assert of_machine.free_bytes() == 4096
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert of_machine.free_bytes() == 4096
    (tmp_path / "memory.max").write_text("3000\n")
    assert of_machine.free_bytes() == 2000
