"""What every optimizer promises; a new one is found in the catalogue and tested by itself."""

import copy
from inspect import signature

import pytest
import torch
from torch import nn

from dlrm.errors import ConfigError
from dlrm.optim import build, find
from dlrm.optim.optimizer import SparseOptimizer

from .tables import NAMES, Net, backward, net, train

STORAGES = ("fp32", "bf16", "bf16_nearest", "split")


def optimizer_over(
    name: str, net: Net, lr: float = 0.05, **options: float | str
) -> SparseOptimizer:
    """The optimizer over a net, with those of the options that it takes."""
    taken = signature(find(name)).parameters
    return build(name, net.groups(), lr, **{key: options[key] for key in options if key in taken})


def state_of(optimizer: SparseOptimizer) -> dict[str, torch.Tensor]:
    return {
        f"{g}.{p}.{key}": value
        for g, group in enumerate(optimizer.param_groups)
        for p, weight in enumerate(group["params"])
        for key, value in optimizer.state[weight].items()
    }


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_what_was_declared_and_there_from_the_start(name, storage):
    declared = find(name).declaration
    model = net(storage, rows=7, dim=5)
    optimizer = optimizer_over(name, model)

    def bytes_of(*weights: torch.Tensor) -> int:
        kept = [t for w in weights for key, t in optimizer.state[w].items() if key != "step"]
        return sum(tensor.nbytes for tensor in kept)

    dense = list(model.layer.parameters())
    tensors = state_of(optimizer)
    assert bytes_of(model.weight) == 7 * declared.row_state_bytes(5, storage)
    assert bytes_of(*dense) == declared.dense_state_bytes(sum(p.numel() for p in dense))
    steps = sum(tensor.nbytes for key, tensor in tensors.items() if key.endswith(".step"))
    assert steps == len(optimizer.param_groups) * declared.state_bytes_per_group
    # A process may keep some rows of a table: its state must be cut like the table.
    assert all(
        tensor.shape[0] == 7 for key, tensor in optimizer.state[model.weight].items()
        if key != "step"
    )  # fmt: skip
    train(model, optimizer, 2)
    after = state_of(optimizer)
    assert {key: id(tensor) for key, tensor in after.items()} == {
        key: id(tensor) for key, tensor in tensors.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_memory_has_the_state_that_it_will_have(name):
    real = state_of(optimizer_over(name, net()))
    model = copy.deepcopy(net()).to("meta")
    planned = state_of(optimizer_over(name, model))
    assert {k: (v.shape, v.dtype) for k, v in planned.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_kernels_are_those_of_float64(name):
    exact, single = net(dtype=torch.float64, rows=30, dim=8), net(rows=30, dim=8)
    for model in (exact, single):
        train(model, optimizer_over(name, model, embedding_l2=0.1, weight_decay=0.01), 6)
    for one, other in zip(exact.numbers(), single.numbers(), strict=True):
        torch.testing.assert_close(other.double(), one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_duplicates_of_a_row_are_one_row_with_the_sum_of_their_gradients(name):
    models = [net(dtype=torch.float64) for _ in range(2)]
    optimizers = [optimizer_over(name, model, embedding_l2=0.1) for model in models]
    for step in range(4):
        for model in models:
            backward(model, step)
        grad = models[1].weight.grad
        assert grad is not None
        assert grad.is_sparse
        models[1].weight.grad = grad.coalesce()
        assert models[1].weight.grad._nnz() < grad._nnz()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(models[0].numbers(), models[1].numbers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_were_not_looked_up_stay_as_they_are(name):
    model = net(rows=50)
    before = model.numbers()[0]
    optimizer = optimizer_over(name, model, embedding_l2=0.1)
    rows = backward(model, 0)
    optimizer.step()
    changed = (model.numbers()[0] != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == sorted(set(rows.tolist()))


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "embedding_rows" in signature(find(name)).parameters]
)
def test_all_rows_take_part_where_they_shall(name):
    models = {rows: net(rows=9) for rows in ("touched", "all")}
    optimizers = {
        rows: optimizer_over(name, model, embedding_l2=0.1, embedding_rows=rows)
        for rows, model in models.items()
    }
    everything = torch.arange(9).repeat(2)
    for rows, model in models.items():
        backward(model, 0, everything)
        optimizers[rows].step()
        optimizers[rows].zero_grad()
    torch.testing.assert_close(models["all"].numbers()[0], models["touched"].numbers()[0])
    for rows, model in models.items():
        before = model.numbers()[0]
        backward(model, 1, torch.tensor([3, 3, 5]))
        optimizers[rows].step()
        changed = (model.numbers()[0] != before).any(dim=1).nonzero().flatten().tolist()
        assert changed == (list(range(9)) if rows == "all" else [3, 5])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_state_goes_on_bit_for_bit(name, storage):
    models, optimizers = [net(storage) for _ in range(2)], []
    for model in models:
        optimizers.append(optimizer_over(name, model, lr=0.1))
    train(models[0], optimizers[0], 3)
    for p, other in zip(models[1].parameters(), models[0].parameters(), strict=True):
        p.data.copy_(other.detach())
    kept = state_of(optimizers[1])
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    assert all(tensor is kept[key] for key, tensor in state_of(optimizers[1]).items())
    for model, optimizer in zip(models, optimizers, strict=True):
        torch.manual_seed(0)
        train(model, optimizer, 3, first=3)
    for one, other in zip(models[0].numbers(), models[1].numbers(), strict=True):
        assert torch.equal(one, other)
    states = [state_of(optimizer) for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_split_tables_train_as_float32_ones(name):
    full, split = net(rows=30, dim=8), net("split", rows=30, dim=8)
    optimizers = [optimizer_over(name, model, embedding_l2=0.001) for model in (full, split)]
    for model, optimizer in zip((full, split), optimizers, strict=True):
        # The layer sees what bfloat16 can hold of the rows: what it makes of that is not compared.
        for step in range(20):
            torch.manual_seed(step)
            rows = torch.randint(0, 30, (9,))
            factor = torch.randn(9, 8)
            (model.table.lookup(rows) * factor).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    upper = split.weight.detach().view(torch.int16).int() << 16
    lower = optimizers[1].state[split.weight]["lower"]
    assert lower.dtype == torch.int16
    assert torch.equal((upper | (lower.int() & 0xFFFF)).view(torch.float32), full.weight.detach())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_tables_follow_float32_ones_and_repeat_with_the_seed(name):
    def trained(storage):
        model = net(storage, rows=30, dim=8)
        optimizer = optimizer_over(name, model, lr=0.01)
        train(model, optimizer, 20)
        return model.weight.detach(), optimizer.state[model.weight]

    (full, _), (half, state), (again, _) = trained("fp32"), trained("bf16"), trained("bf16")
    nearest, _ = trained("bf16_nearest")
    assert torch.equal(half, again)
    assert not torch.equal(half, nearest)
    kept = {key: value.dtype for key, value in state.items() if key != "step"}
    assert set(kept.values()) <= {torch.float32}
    # Each of at most 20 roundings is off by less than one unit of bfloat16, up or down at random.
    difference = half.float() - full
    unit = full.abs().clamp(min=0.05) * 2**-7
    assert (difference.abs() <= 8 * unit).all()
    assert (difference / unit).mean().abs() < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_dense_gradients_in_bfloat16_are_taken_as_they_are(name):
    half, full = nn.Parameter(torch.randn(40, 30)), nn.Parameter(torch.empty(40, 30))
    full.data.copy_(half.detach())
    half.grad_dtype = torch.bfloat16
    for p in (half, full):
        generator = torch.Generator().manual_seed(1)
        optimizer = build(name, [{"params": [p], "sparse": False}], 0.1)
        for _ in range(3):
            grad = torch.randn(40, 30, generator=generator).bfloat16()
            p.grad = grad if p is half else grad.float()
            optimizer.step()
    torch.testing.assert_close(half, full, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_a_gradient_stay_as_they_are(name):
    model = net()
    optimizer = optimizer_over(name, model, weight_decay=0.5, embedding_l2=0.5)
    before = model.numbers()
    optimizer.step()
    model.layer.bias.grad = torch.ones(2)
    optimizer.step()
    after = model.numbers()
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[2], before[2])


@pytest.mark.parametrize("name", NAMES)
def test_groups_that_are_stepped_one_after_the_other_step_as_together(name):
    together, apart = net(), net()
    train(together, optimizer_over(name, together), 3)
    optimizer = optimizer_over(name, apart)
    groups = optimizer.param_groups
    for step in range(3):
        backward(apart, step)
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
        optimizer.param_groups = groups
        optimizer.zero_grad()
    for one, other in zip(together.numbers(), apart.numbers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_alone_are_what_their_gradients_say(name):
    grouped, plain = net(), net()
    train(grouped, optimizer_over(name, grouped), 4)
    optimizer = build(name, plain.parameters(), 0.05)
    train(plain, optimizer, 2)
    again = build(name, plain.parameters(), 0.05)
    again.load_state_dict(optimizer.state_dict())
    train(plain, again, 2, first=2)
    for one, other in zip(grouped.numbers(), plain.numbers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_dense_gradient_of_a_table_is_one_of_every_row(name):
    sparse, dense = net(dtype=torch.float64), net(dtype=torch.float64)
    for model in (sparse, dense):
        optimizer = optimizer_over(name, model)
        for step in range(3):
            backward(model, step, torch.arange(10).repeat(2))
            if model is dense:
                assert model.weight.grad is not None
                model.weight.grad = model.weight.grad.to_dense()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(sparse.numbers()[0], dense.numbers()[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_right_is_refused(name):
    model = net()
    optimizer = build(name, [{"params": list(model.parameters()), "sparse": False}], 0.1)
    backward(model, 0)
    with pytest.raises(ConfigError, match=r"dense parameter \(10, 3\) has a sparse gradient"):
        optimizer.step()
    with pytest.raises(ConfigError, match=r"groups of \[2, 1\] parameters, these are \[3\]"):
        optimizer.load_state_dict(optimizer_over(name, model).state_dict())


def test_state_of_another_optimizer_is_refused():
    model = net()
    with pytest.raises(ConfigError, match=r"state of parameter 0 is .*first.*expected .*sum"):
        optimizer_over("adagrad", model).load_state_dict(optimizer_over("adam", model).state_dict())
