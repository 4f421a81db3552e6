from __future__ import annotations

import threading
import time

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlrm.errors import ConfigError, WorldError
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.process_groups import choose_backend
from dlrm.parallel.world import ALONE, World

from .ranks import Ranks

DTYPES = (torch.float32, torch.float64, torch.int64)
worlds = st.integers(1, 4)


def draw(seed: int, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(100 * seed + rank)
    return torch.randint(-1000, 1000, shape, generator=generator).to(dtype)


def _sum(
    world: World, seed: int, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    own = draw(seed, world.rank, shape, dtype)
    return own, world.sum(own)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_sum_over_ranks(ranks: Ranks, data: st.DataObject):
    size, seed = data.draw(worlds), data.draw(st.integers(0, 99))
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=3)))
    dtype = data.draw(st.sampled_from(DTYPES))
    expected = sum(
        (draw(seed, rank, shape, dtype) for rank in range(size)), torch.zeros(shape, dtype=dtype)
    )
    for rank, (own, total) in enumerate(ranks.run(_sum, seed, shape, dtype, world=size)):
        assert torch.equal(own, draw(seed, rank, shape, dtype))  # not summed in place
        assert total.dtype == dtype
        assert torch.equal(total, expected)


def _gather(
    world: World, seed: int, rows: list[int], rest: tuple[int, ...], dtype: torch.dtype
) -> list[Tensor]:
    return world.gather(draw(seed, world.rank, (rows[world.rank], *rest), dtype))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_gather_takes_every_number_of_rows(ranks: Ranks, data: st.DataObject):
    size, seed = data.draw(worlds), data.draw(st.integers(0, 99))
    rows = data.draw(st.lists(st.integers(0, 6), min_size=size, max_size=size))
    rest = tuple(data.draw(st.lists(st.integers(0, 3), max_size=2)))
    dtype = data.draw(
        st.sampled_from((*DTYPES, torch.bfloat16, torch.float16, torch.uint8, torch.bool))
    )
    expected = [draw(seed, rank, (n, *rest), dtype) for rank, n in enumerate(rows)]
    for parts in ranks.run(_gather, seed, rows, rest, dtype, world=size):
        assert len(parts) == size
        for part, right in zip(parts, expected, strict=True):
            assert part.dtype == dtype
            assert torch.equal(part, right)


def _echo(world: World, values: list[object]) -> tuple[object, list[object]]:
    return world.broadcast_object(values[world.rank]), world.all_gather_object(values[world.rank])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_tell_and_ask(ranks: Ranks, data: st.DataObject):
    size = data.draw(worlds)
    values = data.draw(st.lists(JSON, min_size=size, max_size=size))
    assert ranks.run(_echo, values, world=size) == [(values[0], values)] * size


def _agree(world: World, settings: list[dict[str, object]]) -> None:
    world.assert_same(settings[world.rank])


def test_ranks_that_differ_are_named(ranks: Ranks):
    same = {"recipe": "demo", "seed": 1}
    assert ranks.run(_agree, [same] * 4, world=4) == [None] * 4
    other = same | {"seed": 2}
    with pytest.raises(ConfigError, match=r"seed is 1 on rank 0 and 2 on rank 2"):
        ranks.run(_agree, [same, same, other], world=3)
    with pytest.raises(ConfigError, match=r'recipe is "demo" on rank 0 and missing on rank 1'):
        ranks.run(_agree, [same, {"seed": 1}], world=2)
    with pytest.raises(ConfigError, match=r'x is missing on rank 0 and "y" on rank 1'):
        ranks.run(_agree, [same, same | {"x": "y"}], world=2)


def _first_fails(world: World) -> None:
    if world.first:
        raise ValueError("seven")
    world.barrier()


def _sleeps(world: World) -> None:
    time.sleep(1000)


def _rank(world: World) -> int:
    world.barrier()
    return world.rank


def test_pool_outlives_a_failed_function(ranks: Ranks):
    with pytest.raises(ValueError, match="seven") as caught:
        ranks.run(_first_fails, world=2)
    assert "_first_fails" in caught.value.__notes__[0]
    assert ranks.run(_rank, world=4) == [0, 1, 2, 3]
    with pytest.raises(TimeoutError):
        ranks.run(_sleeps, world=2, timeout_s=0.1)
    assert ranks.run(_rank, world=3) == [0, 1, 2]


def test_alone():
    world = ALONE
    assert (world.rank, world.size, world.first, world.group) == (0, 1, True, None)
    world.barrier()
    world.assert_same({"x": 1})


def test_a_world_of_one_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    threads = threading.active_count()
    with World.from_environment() as world:
        assert (world.size, world.group, world.exchange) == (1, None, None)
        assert world.all_gather_object("x") == ["x"]
        assert not dist.is_initialized()
        assert threading.active_count() == threads


def test_no_launcher(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert World.from_environment().group is None


def test_a_backend_that_is_not_here(monkeypatch: pytest.MonkeyPatch):
    place = LaunchEnv(0, 2, 0, 2, "x", 1)
    with pytest.raises(ConfigError, match='unknown backend "ucx"; choose one of: auto, gloo'):
        choose_backend("ucx", place)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(ConfigError, match="nccl is not in this build of torch"):
        choose_backend("nccl", place)
    assert choose_backend("auto", place) == "gloo"
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    with pytest.raises(ConfigError, match="this run computes on cpu: choose device cuda"):
        choose_backend("nccl", place)
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 processes and 1 GPUs"):
        choose_backend("nccl", place, gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_backend("nccl", place, gpu) == "nccl"


def test_nccl_is_chosen_only_with_a_device(monkeypatch: pytest.MonkeyPatch):
    place = LaunchEnv(0, 2, 0, 2, "x", 1)
    # A machine with GPUs, and a model that stays on the CPU.
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_backend("auto", place) == "gloo"
    assert choose_backend("auto", place, torch.device("cuda", 1)) == "nccl"
    with pytest.raises(ConfigError, match="backend gloo carries what is on CPUs"):
        choose_backend("gloo", place, torch.device("cuda", 1))
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    with pytest.raises(ConfigError, match="nccl is not in this build of torch"):
        choose_backend("auto", place, torch.device("cuda", 1))


def test_only_errors_of_a_connection_are_explained():
    world = ALONE
    gloo = "[/x/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:7. This is typical."
    with pytest.raises(WorldError, match=r"^Connection closed by peer \[::1\]:7$"), world.guard():
        raise RuntimeError(gloo)
    beside = "Application timeout caused pair closure"
    with pytest.raises(WorldError, match=r"^Timed out, with another exchange"), world.guard():
        raise RuntimeError(beside)
    for other in ("mat1 and mat2 shapes cannot be multiplied", "DataLoader timed out"):
        with pytest.raises(RuntimeError, match=other), world.guard():
            raise RuntimeError(other)
