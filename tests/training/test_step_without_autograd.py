"""A training step whose gradients no graph of autograd computes: the bits of one with a graph."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from dlrm.batch import Batch
from dlrm.errors import IdError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.embedding import materialize, parameter_groups
from dlrm.nn.tables import TablesConfig
from dlrm.ops import cpu
from dlrm.ops.cpu import library
from dlrm.ops.dlrm import Call
from dlrm.ops.storage import Storage
from dlrm.optim import build
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
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """All calls whose gradients were computed without a graph."""
    made: list[Call] = []
    whole = DLRM.without_autograd

    def without_autograd(self: DLRM, batch: Batch) -> Call | None:
        call = whole(self, batch)
        return call if call is None else made.append(call) or call

    monkeypatch.setattr(DLRM, "without_autograd", without_autograd)
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
    config = DLRMConfig(dim=6, bottom=(33, 17), top=(40, 9), tables=tables)
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
