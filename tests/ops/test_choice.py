"""Choices between ways to compute the same: measured once, kept, repeated.

No test depends on what a clock says.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
    assert measured(["a", "b"], "a", clock(a=1e-3, b=0.81e-3)) == "a"
    assert measured(["a", "b"], "a", clock(a=1e-3, b=0.79e-3)) == "b"
    assert measured(["a", "b", "c"], "c", clock(a=1e-3, b=0.5e-3, c=0.52e-3)) == "c"
    assert measured(["a", "b", "c"], "a", clock(a=1e-3, b=0.6e-3, c=0.5e-3)) == "c"


class Machine:
    """A clock, and ways that take time by it: a run's time, noise, and now and then a gap.

    A gap is what a virtual CPU takes that is put aside: 4 to 40 ms.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]):
        self.now, self.turns, self.seconds = 0.0, list[str](), seconds
        self.noise, self.gaps, self.gap_at, self.runs = 0.0, 0.0, -1, 0
        self.random = Random(0)
        monkeypatch.setattr(choice.time, "perf_counter", lambda: self.now)

    def run(self, way: str) -> None:
        if self.turns[-1:] != [way]:
            self.turns.append(way)
        self.now += self.seconds[way] * self.random.lognormvariate(0, self.noise)
        if self.runs == self.gap_at or self.random.random() < self.gaps:
            self.now += self.random.uniform(4e-3, 40e-3)
        self.runs += 1

    def chosen(self) -> str:
        return measured(list(self.seconds), next(iter(self.seconds)), self.run)


SCALES = (1e-4, 1e-3, 1e-2)
"""Seconds of a run."""


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("b", "expected", "most_rounds"), [(1.0, "a", 4), (0.9, "a", 8), (0.5, "b", 14), (3.0, "a", 2)]
)
def test_noise_and_gaps_change_no_choice(monkeypatch, scale, b, expected, most_rounds):
    for seed in range(300):
        machine = Machine(monkeypatch, {"a": scale, "b": b * scale})
        machine.noise, machine.gaps, machine.random = 0.05, 0.05, Random(seed)
        assert machine.chosen() == expected, seed
        assert len(machine.turns) <= 2 * most_rounds, seed


@settings(deadline=None, max_examples=30)
@given(
    scale=st.sampled_from(SCALES),
    ratio=st.sampled_from((0.5, 0.7, 1.0, 1.3, 3.0)),
    at=st.integers(0, 2000),
)
def test_a_single_gap_changes_nothing(scale, ratio, at):
    chosen = []
    for gap_at in (-1, at):
        with pytest.MonkeyPatch.context() as patch:
            machine = Machine(patch, {"a": scale, "b": ratio * scale})
            machine.gap_at = gap_at
            chosen.append((machine.chosen(), len(machine.turns)))
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("b", [0.5, 1.0])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_measuring_ends(monkeypatch, scale, b):
    machine = Machine(monkeypatch, {"a": scale, "b": b * scale, "c": b * scale})
    machine.gaps = 0.5
    machine.chosen()
    round_s = 3 * (choice.TURN_S + choice.LEAST_RUNS * (scale + 40e-3))
    assert machine.now < choice.MOST_S + round_s


def test_a_choice_is_measured_once_and_kept_for_this_machine(measuring, clock):
    first = Choices()
    assert first.fastest("sum", ["a", "b"], "a", clock(a=0.02, b=0.01)) == "b"
    assert first.fastest("product", ["a", "b"], "a", clock(a=0.01, b=0.02)) == "a"
    for known in (first, Choices()):
        assert known.fastest("sum", ["a", "b"], "a", clock()) == "b"  # which can run nothing
        assert known.fastest("product", ["a", "b"], "b", clock()) == "a"
    assert first.used() == {"product": "a", "sum": "b"}
    # Of another torch, damaged, or of a way that is gone: it is measured again.
    kept = json.loads(kept_in().read_text())
    for content in (json.dumps({**kept, "torch": "1.0"}), "{", "[]", json.dumps({"torch": 1})):
        kept_in().write_text(content)
        assert Choices().fastest("sum", ["a", "b"], "b", clock(a=0.01, b=0.02)) == "a"
    assert Choices().fastest("sum", ["b", "c"], "b", clock(b=0.01, c=0.02)) == "b"


def test_other_threads_have_choices_of_their_own(measuring, clock):
    assert Choices().fastest("sum", ["a", "b"], "a", clock(a=0.02, b=0.01)) == "b"
    torch.set_num_threads(3)  # the fixture `one_thread` takes it back
    assert Choices().fastest("sum", ["a", "b"], "a", clock(a=0.01, b=0.02)) == "a"


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
        assert other.fastest("product", ["a", "b"], "a", clock(a=0.01, b=0.02)) == "a"
    assert other.used() == {"sum": "b", "product": "a"}
    error = capfd.readouterr().err
    assert error.count("dlrm: the run computed product by tiles, which cannot run here") == 1
    only = Choices()
    only.repeat_only({"sum": "b"})
    assert only.fastest("sum", ["a", "b"], "a", clock()) == "b"
    assert only.fastest("quotient", ["a", "b"], "a", clock()) == "a"


def test_mlps_choose_by_measuring_and_compute_by_what_they_chose(measuring, monkeypatch):
    known = Choices()
    monkeypatch.setattr(ways, "choices", known)
    asked = list[tuple[str, ...]]()

    def last(names: list[str], default: str, run: Callable[[str], object]) -> str:
        for name in names:
            run(name)  # each can be measured
        asked.append(tuple(names))
        return names[-1]

    monkeypatch.setattr(choice, "measured", last)
    mlp, other = MLP([5, 7, 1], relu_last=False), MLP([3, 9, 2], relu_last=True)
    x, parameters = torch.randn(20, 5), list(mlp.layers.parameters())
    generator = torch.get_rng_state()
    choose(nn.Sequential(mlp), 20)
    choose(nn.Sequential(mlp, other), ways.MANY)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in parameters)
    isa = cpu.instruction_set()
    # Scores are asked of no way whose last bits may depend on how many there are.
    scores = isa if isa == "avx512" else "torch"
    steps = {f"mlp fp32 {task}": "torch" for task in ("below 512", "from 512")}
    assert known.used() == {**steps, "mlp fp32 scores": scores}
    assert asked == [(isa, "torch")] * (2 if isa == "avx512" else 3)
    assert ways.chosen(x, parameters, "fp32") is None
    known.repeat(dict.fromkeys(known.used(), isa))
    assert ways.chosen(x, parameters, "fp32") == "fp32"
    with torch.no_grad():
        assert ways.chosen(x, parameters, "fp32") == "fp32"


def test_torch_is_no_way_to_multiply_bfloat16_where_onednn_does_not(measuring, monkeypatch):
    monkeypatch.setattr(products, "takes_bf16", lambda: False)
    named, default = ways._ways.__wrapped__("avx2", "bf16")
    assert (list(named), default) == (["avx2 bf16"], "avx2 bf16")
    assert list(ways._ways.__wrapped__("avx2", "fp32")[0]) == ["avx2", "torch"]
