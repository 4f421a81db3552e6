"""A training step whose gradients no graph of autograd computes: the bits of one with a graph."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from dlrm.batch import Batch
from dlrm.errors import IdError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.embedding import materialize, parameter_groups
from dlrm.nn.tables import TablesConfig
from dlrm.ops import cpu
from dlrm.ops.cpu import library
from dlrm.ops.dlrm import Inputs, Step
from dlrm.ops.storage import Storage
from dlrm.optim import build
from dlrm.optim.sgd import SGD
from dlrm.schema import Schema
from dlrm.training.loss import LossConfig, cross_entropy, loss_function
from dlrm.training.step import TrainStep

SIZES = (40, 3, 500)
SCHEMA = Schema.one_hot(5, SIZES)


@pytest.fixture(autouse=True)
def avx512() -> None:
    reason = cpu.use("avx512")
    if reason is not None or not library.native.multiplies_bf16():
        pytest.skip(reason or "this CPU has no AVX512-BF16")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Inputs]:
    """All inputs whose gradients were computed without a graph."""
    made: list[Inputs] = []
    whole = DLRM.without_autograd

    def without_autograd(self: DLRM, batch: Batch) -> Inputs | None:
        inputs = whole(self, batch)
        return inputs if inputs is None else made.append(inputs) or inputs

    monkeypatch.setattr(DLRM, "without_autograd", without_autograd)
    return made


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """All kernels' steps that were made, which serve as long as they fit."""
    made: list[Step] = []
    start = Step.__init__
    monkeypatch.setattr(
        Step, "__init__", lambda self, inputs: made.append(self) or start(self, inputs)
    )
    return made


def batch_of(seed: int, samples: int = 70) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(n, (samples,), generator=generator) for n in SIZES]
    return Batch(
        dense=torch.randn(samples, 5, generator=generator),
        ids=torch.stack(ids, 1),
        labels=torch.randint(2, (samples, 1), generator=generator).float(),
    )


def step_of(storage: Storage = "fp32", optimizer: str = "sgd", **options) -> tuple[DLRM, TrainStep]:
    torch.manual_seed(1)
    tables = TablesConfig(storage=storage)
    config = DLRMConfig(dim=6, bottom=(33, 17, 17), top=(40, 9), tables=tables)
    net = materialize(config.build(SCHEMA, "bf16"))
    return net, TrainStep(
        net, build(optimizer, parameter_groups(net), 0.1), loss_function(LossConfig()), **options
    )


def in_a_graph(step: TrainStep) -> TrainStep:
    """Return a step with a loss of its own, which keeps autograd."""
    step.loss = partial(cross_entropy)
    return step


def trained(net: DLRM, step: TrainStep) -> list[Tensor]:
    """Losses, logits and parameters of a few steps."""
    torch.manual_seed(2)
    kept = []
    for seed in range(5):
        kept += [step(batch_of(seed)), step.logits.clone()]
    return [*kept, *(parameter.detach().clone() for parameter in net.parameters())]


@pytest.mark.parametrize("options", [{}, {"clip": 1e-2}, {"accumulate": 2}])
@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
def test_bits_are_those_of_autograd(storage, optimizer, options, calls):
    ours = trained(*step_of(storage, optimizer, **options))
    # Of batches whose gradients are added up, the first one's alone.
    assert len(calls) == (3 if "accumulate" in options else 5)
    net, step = step_of(storage, optimizer, **options)
    theirs = trained(net, in_a_graph(step))
    assert len(calls) == (3 if "accumulate" in options else 5)
    assert all(map(torch.equal, ours, theirs))
    assert not any(tensor.requires_grad for tensor in ours)


@pytest.mark.parametrize("labels", [("click",), ("click", "buy", "return")])
@pytest.mark.parametrize("samples", [1, 512, 513, 1100])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_of_several_blocks_have_the_bits_of_autograd(precision, samples, labels, calls):
    schema = Schema.one_hot(5, SIZES, labels=labels)
    config = DLRMConfig(dim=6, bottom=(33, 17), top=(40, 9))
    batch = batch_of(3, samples)
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randint(2, (samples, len(labels)), generator=generator).float()
    batch = Batch(batch.dense, batch.ids, drawn)
    results = []
    for graph in (False, True):
        torch.manual_seed(1)
        torch.set_num_threads(1 + graph)
        net = materialize(config.build(schema, precision))
        step = TrainStep(net, build("sgd", parameter_groups(net), 0.1), loss_function(LossConfig()))
        step = in_a_graph(step) if graph else step
        results.append([step(batch), step.logits, *(p.detach() for p in net.parameters())])
    assert len(calls) == 1
    assert all(map(torch.equal, *results))


def test_an_id_out_of_range_in_a_later_block_is_named(calls):
    _, step = step_of()
    wrong = batch_of(0, 1100)
    wrong.ids[1030, 1] = 99
    wrong.ids[1031, 0] = 98
    with pytest.raises(IdError, match="C2: id 99 is out of range"):
        step(wrong)
    assert len(calls) == 1


def test_gradients_that_somebody_keeps_stay_as_they_are():
    net, step = step_of()
    kept = []
    step.optimizer.register_step_pre_hook(
        lambda *_: kept.append([p.grad for p in net.parameters() if p.grad is not None])
    )
    step(batch_of(0))
    before = [grad.clone() for grad in kept[0]]
    step(batch_of(1))
    assert len(before) == len(list(net.parameters()))
    assert all(
        torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(before, kept[0], strict=True)
    )


HOOKS: dict[str, Callable[[DLRM, Callable], object]] = {
    "forward": lambda net, hook: net.register_forward_hook(hook),
    "before": lambda net, hook: net.top.register_forward_pre_hook(hook),
    "backward": lambda net, hook: net.top.register_full_backward_hook(hook),
    "before backward": lambda net, hook: net.top.register_full_backward_pre_hook(hook),
    "gradient": lambda net, hook: net.top.linears()[0].weight.register_hook(hook),
    "accumulated": lambda net, hook: net.embeddings.get_parameter(
        "weight"
    ).register_post_accumulate_grad_hook(hook),
    "everywhere": lambda net, hook: torch.nn.modules.module.register_module_forward_hook(hook),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_whoever_watches_is_told(kind, calls):
    net, step = step_of()
    told = []
    handle = HOOKS[kind](net, lambda *_: told.append(1))
    step(batch_of(0))
    handle.remove()  # pyright: ignore[reportAttributeAccessIssue]
    assert told
    assert not calls
    step(batch_of(1))
    assert len(calls) == 1


def test_what_is_not_trained_keeps_its_numbers(calls):
    net, step = step_of()
    net.bottom.requires_grad_(False)  # pyright: ignore[reportOptionalMemberAccess]
    before = [p.clone() for p in net.bottom.parameters()]  # pyright: ignore[reportOptionalMemberAccess]
    step(batch_of(0))
    assert not calls
    assert all(map(torch.equal, before, net.bottom.parameters()))  # pyright: ignore[reportOptionalMemberAccess]


def test_an_id_out_of_range_changes_nothing(calls):
    net, step = step_of()
    before = [p.detach().clone() for p in net.parameters()]
    wrong = batch_of(0)
    wrong.ids[3, 1] = 99
    with pytest.raises(IdError, match="C2: id 99 is out of range"):
        step(wrong)
    assert len(calls) == 1
    assert all(map(torch.equal, before, net.parameters()))
    assert all(p.grad is None for p in net.parameters())


def test_labels_of_another_shape_are_an_error():
    _, step = step_of()
    batch = batch_of(0)
    with pytest.raises(ValueError, match=r"labels are \(70, 2\), expected \(70, 1\)"):
        step(Batch(batch.dense, batch.ids, batch.labels.expand(-1, 2)))


def replaced(module: nn.Module, name: str, step: TrainStep | None = None) -> None:
    """Put another parameter in the place of one, which the optimizer of a step has too, or not."""
    old = module.get_parameter(name)
    new = nn.Parameter(old.detach() * 2)
    setattr(module, name, new)
    for group in [] if step is None else step.optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]


def moved(net: DLRM, turned: Callable[[Tensor], Tensor]) -> None:
    """Let the layers' parameters lie elsewhere, or in another way."""
    for layer in (*net.bottom.linears(), *net.top.linears()):  # pyright: ignore[reportOptionalMemberAccess]
        layer.weight.data = turned(layer.weight.data)


def narrowed(net: DLRM) -> None:
    """Let the last hidden layer have 8 outputs instead of 9, in the memory that it has."""
    _, hidden, last = net.top.linears()
    hidden.weight.data, hidden.bias.data = hidden.weight.data[:8], hidden.bias.data[:8]
    last.weight.data = last.weight.data[:, :8]


def loaded(net: DLRM, *, assign: bool) -> None:
    drawn = torch.Generator().manual_seed(7)
    state = {k: torch.randn(v.shape, generator=drawn) for k, v in net.state_dict().items()}
    net.load_state_dict(state, assign=assign)


CHANGES: dict[str, Callable[[DLRM, TrainStep], object]] = {
    "nothing": lambda net, step: None,
    "state loaded": lambda net, step: loaded(net, assign=False),
    "state assigned": lambda net, step: loaded(net, assign=True),
    "another type and back": lambda net, step: net.double().float(),
    "copied": lambda net, step: moved(net, torch.clone),
    "columns first": lambda net, step: moved(net, lambda w: w.t().contiguous().t()),
    "turned where it lies": lambda net, step: moved(
        net, lambda w: w.t() if w.shape[0] == w.shape[1] else w
    ),
    "narrower where it lies": lambda net, step: narrowed(net),
    "layer replaced": lambda net, step: net.top.layers.__setitem__(0, nn.Linear(12, 40)),
    "bias replaced": lambda net, step: replaced(net.top.linears()[1], "bias", step),
    "weight replaced": lambda net, step: replaced(net.top.linears()[1], "weight"),
    "bias in the same memory": lambda net, step: setattr(
        net.top.linears()[1], "bias", nn.Parameter(net.top.linears()[1].bias.detach())
    ),
    "table replaced": lambda net, step: replaced(net.embeddings, "weight", step),
    "fixed": lambda net, step: net.top.linears()[0].weight.requires_grad_(False),
    "fewer in the optimizer": lambda net, step: step.optimizer.param_groups[0]["params"].pop(),
    "clipped": lambda net, step: setattr(step, "clip", 1e-3),
    "rate": lambda net, step: setattr(step, "rate", lambda number: 0.01),
}
"""What can happen to a model between two steps."""


def trained_through(change: str, net: DLRM, step: TrainStep) -> list[Tensor]:
    """Losses, logits and parameters of steps before and after something happened."""
    kept = []
    for seed in range(6):
        if seed == 3:
            torch.manual_seed(3)
            CHANGES[change](net, step)
        kept += [step(batch_of(seed)), step.logits]
    return [*kept, *(p.detach() for p in net.parameters())]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_kept_from_step_to_step_is_that_of_the_model(change, kernels):
    ours = trained_through(change, *step_of())
    made = len(kernels)
    net, step = step_of()
    assert all(map(torch.equal, ours, trained_through(change, net, in_a_graph(step))))
    assert made == 1 if change in ("nothing", "state loaded", "rate") else made > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_one_kernel_serves_all_batches_of_a_size(optimizer, kernels):
    results = []
    for graph in (False, True):
        net, step = step_of(optimizer=optimizer)
        step = in_a_graph(step) if graph else step
        seen: list[Tensor] = []
        for seed, samples in enumerate((70, 70, 9, 9, 70)):
            batch = batch_of(seed, samples)
            # As a loader may have them, and as it may not.
            ids = batch.ids.int() if seed % 2 else batch.ids.t().contiguous().t()
            seen += [step(replace(batch, ids=ids)), step.logits]
        results.append([*seen, *(p.detach() for p in net.parameters())])
    assert len(kernels) == 3
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("other", ["bottom", "top"])
def test_a_parameter_in_two_places_gets_both_gradients(other, calls):
    results = []
    for graph in (False, True):
        torch.manual_seed(1)
        net = materialize(DLRMConfig(dim=6, bottom=(9, 9), top=(9, 9, 9)).build(SCHEMA, "bf16"))
        place = 1 if other == "bottom" else 2
        net.get_submodule(f"{other}.layers.{place}").weight = net.top.linears()[1].weight
        step = TrainStep(net, build("sgd", parameter_groups(net), 0.1), loss_function(LossConfig()))
        results.append(trained(net, in_a_graph(step) if graph else step))
    assert all(map(torch.equal, *results))
    assert not calls


def test_gradients_go_with_their_step():
    net, step = step_of()
    step(batch_of(0))
    assert all(p.grad is None for p in net.parameters())


class Twice(SGD):
    """An optimizer of one's own."""

    def step(self, closure=None):
        super().step(closure)
        return super().step(closure)


WATCHERS: dict[str, Callable[[TrainStep, Callable], object]] = {
    "before": lambda step, hook: step.optimizer.register_step_pre_hook(hook),
    "after": lambda step, hook: step.optimizer.register_step_post_hook(hook),
    "before any": lambda step, hook: register_optimizer_step_pre_hook(hook),
    "after any": lambda step, hook: register_optimizer_step_post_hook(hook),
}


@pytest.mark.parametrize("kind", WATCHERS)
def test_whoever_watches_the_optimizer_is_told_and_sees_gradients(kind):
    net, step = step_of()
    step(batch_of(0))
    seen = []
    handle = WATCHERS[kind](
        step, lambda *_: seen.append([p.grad is None for p in net.parameters()])
    )
    step(batch_of(1))
    handle.remove()  # pyright: ignore[reportAttributeAccessIssue]
    step(batch_of(2))
    assert seen == [[False] * len(list(net.parameters()))]


def test_a_step_of_ones_own_is_called():
    net, step = step_of()
    twice = TrainStep(net, Twice(parameter_groups(net), 0.1), step.loss)
    other, plain = step_of()
    before = other.top.linears()[0].weight.detach().clone()
    twice(batch_of(0))
    plain(batch_of(0))
    moved_by = [(n.top.linears()[0].weight.detach() - before) for n in (net, other)]
    torch.testing.assert_close(moved_by[0], 2 * moved_by[1])


def test_a_schedule_of_torch_sees_that_the_optimizer_took_a_step():
    _, step = step_of()
    schedule = torch.optim.lr_scheduler.StepLR(step.optimizer, 1, gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(batch_of(0))
        schedule.step()
    assert step.lr == 0.05


def test_a_copy_of_a_step_trains_a_model_of_its_own(calls):
    net, step = step_of()
    step(batch_of(0))
    copy = deepcopy(step)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    losses = [float(copy(batch_of(seed))) for seed in (1, 2)]
    assert all(map(torch.equal, net.parameters(), before))
    assert losses == [float(step(batch_of(seed))) for seed in (1, 2)]
    assert all(map(torch.equal, net.parameters(), copy.net.parameters()))
