"""Cores as a container allows them, by the files in which Linux says it."""

import os
from pathlib import Path

import pytest

from dlrm import cores

ALL = 8
"""Cores of the affinity, in these tests."""


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(ALL)), raising=False)


def process(
    folder: Path,
    groups: str,
    quotas: dict[str, str],
    *,
    version: int = 2,
    root: str = "/",
) -> Path:
    """Write what Linux says of a process: its groups, their mount, and the quota in each folder."""
    mount = folder / "mount"
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,cpu,cpuacct"
    (proc := folder / "proc").mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text(
        f"22 1 8:1 / / rw shared:1 - ext4 /dev/root rw\n31 22 0:28 {root} {mount} rw - {kind}\n"
    )
    for group, quota in quotas.items():
        (inner := mount / group).mkdir(parents=True, exist_ok=True)
        if version == 2:
            (inner / "cpu.max").write_text(quota)
        else:
            for name, value in zip(("quota", "period"), quota.split(), strict=True):
                (inner / f"cpu.cfs_{name}_us").write_text(value)
    return proc


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", ALL),
        ("50000 100000\n", 1),
        ("10000 100000\n", 1),
        ("140000 100000\n", 1),
        ("160000 100000\n", 2),
        ("200000 50000\n", 4),
        ("9900000 100000\n", ALL),
        ("nonsense\n", ALL),
    ],
)
def test_a_quota_of_version_2_limits_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    assert cores.count(process(tmp_path, "0::/\n", {"": quota})) == expected


def test_the_least_quota_of_nested_groups_counts(tmp_path: Path) -> None:
    quotas = {"pod": "300000 100000", "pod/box": "max 100000", "other": "10000 100000"}
    assert cores.count(process(tmp_path, "0::/pod/box/deep\n", quotas)) == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1 100000", ALL), ("250000 100000", 2)])
def test_a_quota_of_version_1_limits_the_cores(tmp_path: Path, quota: str, expected: int) -> None:
    groups = "7:memory:/docker/a\n4:cpuacct,cpu:/docker/a\n0::/\n"
    assert cores.count(process(tmp_path, groups, {"docker/a": quota}, version=1)) == expected


def test_within_a_container_the_mount_is_its_own_group(tmp_path: Path) -> None:
    groups = "4:cpu,cpuacct:/docker/a/job\n"
    quotas = {"": "400000 100000", "job": "300000 100000"}
    proc = process(tmp_path, groups, quotas, version=1, root="/docker/a")
    assert cores.quota(proc) == 3.0
    (proc / "cgroup").write_text("4:cpu,cpuacct:/docker/another\n")
    assert cores.quota(proc) == 4.0


def test_without_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cores.quota(tmp_path) is None
    assert cores.count(tmp_path) == ALL


def test_pools_are_limited_by_a_quota_and_the_users_words_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spins = {"GOMP_SPINCOUNT": str(cores.SPINS)}
    environment: dict[str, str] = {}
    cores.limit_pools(environment)
    assert environment == spins
    monkeypatch.setattr(cores, "quota", lambda process: 0.5)
    monkeypatch.setattr("torch.get_num_threads", lambda: ALL)
    chosen: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    cores.limit_pools(environment)
    limited = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", cores.LIMITED: "1"}
    assert environment == spins | limited
    assert chosen == [1]
    for waiting in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        words = {"POLARS_MAX_THREADS": "3", "OMP_NUM_THREADS": "5", waiting: "7"}
        given = words.copy()
        cores.limit_pools(given)
        assert (given, chosen) == (words, [1])


def test_processes_share_cores_unless_the_user_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "quota", lambda process: 6.0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv(cores.LIMITED, raising=False)
    assert cores.share(3) == {"OMP_NUM_THREADS": 2}
    assert cores.share(100) == {"OMP_NUM_THREADS": 1}
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert cores.share(3) == {}
    monkeypatch.setenv(cores.LIMITED, "1")
    assert cores.share(3) == {"OMP_NUM_THREADS": 2}
