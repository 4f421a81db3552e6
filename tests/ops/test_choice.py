"""Choices between ways to compute the same: measured once, kept, repeated.

No test depends on what a clock says.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dlrm.nn.mlp import MLP, choose
from dlrm.ops import choice, cpu, forced_reference, products, ways
from dlrm.ops.choice import Choices, kept_in, measured


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[str], None]]:
    """`clock(fast=1, slow=2)` returns what takes so many seconds, by a clock that stands else."""
    now = 0.0
    monkeypatch.setattr(choice.time, "perf_counter", lambda: now)

    def run_in(**seconds: float) -> Callable[[str], None]:
        def run(way: str) -> None:
            nonlocal now
            now += seconds[way]

        return run

    return run_in


@pytest.fixture
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is chosen yet, and everything is measured."""
    if forced_reference() or cpu.available() is not None:
        pytest.skip("no kernels here")
    monkeypatch.delenv("DLRM_KERNELS", raising=False)
    (tmp_path / "kept").mkdir(mode=0o700)
    monkeypatch.setenv("DLRM_CACHE", str(tmp_path / "kept"))


def test_the_default_stays_unless_another_way_is_clearly_faster(clock):
    assert measured(["a", "b"], "a", clock(a=1.0, b=0.95)) == "a"
    assert measured(["a", "b"], "a", clock(a=1.0, b=0.8)) == "b"
    assert measured(["a", "b", "c"], "c", clock(a=1.0, b=0.5, c=0.52)) == "c"


def test_every_way_takes_its_turn_and_the_first_round_does_not_count(monkeypatch):
    now, runs = 0.0, list[str]()
    monkeypatch.setattr(choice.time, "perf_counter", lambda: now)

    def run(way: str) -> None:
        nonlocal now
        # `b` is compiled in its first run, and put aside in its second.
        now += 1e-3 if way == "a" else (10, 1, 1e-4)[min(runs.count("b"), 2)]
        runs.append(way)

    assert measured(["a", "b"], "a", run) == "b"
    assert runs[:6] == ["a", "b"] * 3
    assert len(runs) <= 2 * (choice.ROUNDS + 1)


def test_a_choice_is_measured_once_and_kept_for_this_machine(measuring, clock):
    first = Choices()
    assert first.fastest("sum", ["a", "b"], "a", clock(a=2, b=1)) == "b"
    assert first.fastest("product", ["a", "b"], "a", clock(a=1, b=2)) == "a"
    for known in (first, Choices()):
        assert known.fastest("sum", ["a", "b"], "a", clock()) == "b"  # which can run nothing
        assert known.fastest("product", ["a", "b"], "b", clock()) == "a"
    assert first.used() == {"product": "a", "sum": "b"}
    # Of another torch, damaged, or of a way that is gone: it is measured again.
    kept = json.loads(kept_in().read_text())
    for content in (json.dumps({**kept, "torch": "1.0"}), "{", "[]", json.dumps({"torch": 1})):
        kept_in().write_text(content)
        assert Choices().fastest("sum", ["a", "b"], "b", clock(a=1, b=2)) == "a"
    assert Choices().fastest("sum", ["b", "c"], "b", clock(b=1, c=2)) == "b"


def test_other_threads_have_choices_of_their_own(measuring, clock):
    assert Choices().fastest("sum", ["a", "b"], "a", clock(a=2, b=1)) == "b"
    torch.set_num_threads(3)  # the fixture `one_thread` takes it back
    assert Choices().fastest("sum", ["a", "b"], "a", clock(a=1, b=2)) == "a"


@pytest.mark.parametrize("forced", ["default", "avx2", "tiles", "cpu"])
def test_nothing_is_measured_where_kernels_are_forced(measuring, clock, monkeypatch, forced):
    monkeypatch.setenv("DLRM_KERNELS", forced)
    assert Choices().fastest("sum", ["a", "b"], "a", clock()) == "a"
    assert not kept_in().exists()


def test_choices_of_another_process_are_repeated(measuring, clock, capfd):
    other = Choices()
    other.repeat({"sum": "b", "product": "tiles"})
    assert other.fastest("sum", ["a", "b"], "a", clock()) == "b"
    assert not capfd.readouterr().err
    # A way that this machine lacks is told of, once, and another one taken.
    for _ in range(2):
        assert other.fastest("product", ["a", "b"], "a", clock(a=1, b=2)) == "a"
    assert other.used() == {"sum": "b", "product": "a"}
    error = capfd.readouterr().err
    assert error.count("dlrm: the run computed product by tiles, which cannot run here") == 1
    only = Choices()
    only.repeat_only({"sum": "b"})
    assert only.fastest("sum", ["a", "b"], "a", clock()) == "b"
    assert only.fastest("quotient", ["a", "b"], "a", clock()) == "a"


def test_an_mlp_chooses_by_measuring_and_computes_by_what_it_chose(measuring, monkeypatch):
    known = Choices()
    for module in (ways, products):
        monkeypatch.setattr(module, "choices", known)
    asked = list[tuple[str, ...]]()

    def last(names: list[str], default: str, run: Callable[[str], object]) -> str:
        for name in names:
            run(name)  # each can be measured
        asked.append(tuple(names))
        return names[-1]

    monkeypatch.setattr(choice, "measured", last)
    mlp = MLP([5, 7, 1], relu_last=False)
    x, parameters = torch.randn(20, 5), list(mlp.layers.parameters())
    before = [p.detach().clone() for p in parameters]
    generator = torch.get_rng_state()
    choose(nn.Sequential(mlp), 20)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(map(torch.equal, parameters, before))
    assert all(p.grad is None for p in parameters)
    isa = cpu.instruction_set()
    assert known.used() == {
        **{f"mlp fp32 5-7-1 {task}": isa for task in ("scores", "training 128")},
        # Of which the way by torch is made.
        **{f"product fp32 {shape}": "onednn" for shape in ("5-7", "7-1")},
        **{f"product back fp32 {shape}": "onednn" for shape in ("1-7", "7-5")},
    }
    assert set(asked) == {("torch", isa), ("torch", "onednn")}
    # Scores are asked of no way whose last bits may depend on how many there are.
    assert asked.count(("torch", isa)) == (1 if isa == "avx512" else 2)
    assert ways.chosen(x, parameters, "fp32", relu_last=False) == "fp32"
    known.repeat({"mlp fp32 5-7-1 training 128": "torch"})
    assert ways.chosen(x, parameters, "fp32", relu_last=False) is None
    with torch.no_grad():
        assert ways.chosen(x, parameters, "fp32", relu_last=False) == "fp32"
