"""Each optimizer against a dense oracle, with duplicate ids and several steps."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.errors import ConfigError
from dlrm.nn.embedding import EmbeddingCollection, Storage
from dlrm.ops import dense_backend
from dlrm.optim import OPTIMIZERS, build
from dlrm.optim.config import OptimConfig
from dlrm.optim.gradients import Rows

TORCH = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}
EPS = {"sgd": 0.0, "adagrad": 1e-10, "rowwise_adagrad": 1e-10, "adam": 1e-8}


def oracle(
    name: str, w: Tensor, grads: list[Tensor], parts: list[Tensor], lr: float, l2: float = 0.0
) -> Tensor:
    """Steps on a whole (R, D) table, of which only the rows of `parts` (R,) take part."""
    w, mean, square = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
    for t, grad in enumerate(grads, start=1):
        part = parts[t - 1][:, None]
        g = grad + l2 * w
        if name == "sgd":
            step = g
        elif name == "adam":
            mean = torch.where(part, 0.9 * mean + 0.1 * g, mean)
            square = torch.where(part, 0.999 * square + 0.001 * g**2, square)
            step = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + EPS[name])
        else:
            more = g**2 if name == "adagrad" else (g**2).mean(dim=1, keepdim=True)
            square = torch.where(part, square + more, square)
            step = g / (square.sqrt() + EPS[name])
        w = torch.where(part, w - lr * step, w)
    return w


def torch_oracle(name: str, w: Tensor, grads: list[Tensor], lr: float, l2: float = 0.0) -> Tensor:
    """The same steps of torch's own optimizer, with a dense gradient."""
    q = nn.Parameter(w.clone())
    # Row-wise Adagrad is Adagrad in dense parameters.
    optimizer = TORCH.get(name, torch.optim.Adagrad)([q], lr=lr, weight_decay=l2)
    for g in grads:
        q.grad = g.clone()
        optimizer.step()
    return q.detach()


@pytest.mark.parametrize("rows", ["touched", "all"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_the_dense_oracle(name, dtype, l2, rows: Rows):
    torch.manual_seed(0)
    collection = EmbeddingCollection([6, 4], 3).to(dtype)
    dense = nn.Linear(3, 2).to(dtype)
    before = [p.detach().clone().double() for p in (collection.weight, *dense.parameters())]
    options = {"weight_decay": l2 / 2, "embedding_l2": l2, "embedding_rows": rows}
    optimizer = build(name, [*collection.parameters(), *dense.parameters()], 0.2, **options)
    grads: list[list[Tensor]] = [[], [], []]
    parts: list[Tensor] = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.stack([torch.randint(0, n, (4,), generator=generator) for n in (6, 4)], 1)
        factor = torch.randn(4, 2, 2, generator=generator).to(dtype)
        # Twice, so that gradients accumulate.
        for part in (slice(0, 3), slice(3, 4)):
            (dense(collection(ids[part])).sin() * factor[part]).sum().backward()
        for kept, p in zip(grads, (collection.weight, *dense.parameters()), strict=True):
            assert p.grad is not None
            kept.append(p.grad.to_dense().clone().double())
        parts.append(torch.zeros(10, dtype=torch.bool))
        parts[-1][ids[:, 0]] = parts[-1][ids[:, 1] + 6] = True
        optimizer.step()
        optimizer.zero_grad()
    assert not all(part.all() for part in parts)
    if rows == "all":
        parts = [torch.ones_like(part) for part in parts]
    rtol, atol = (1e-9, 1e-9) if dtype == torch.float64 else (1e-3, 1e-4)
    expected = oracle(name, before[0], grads[0], parts, 0.2, l2)
    torch.testing.assert_close(collection.weight.detach().double(), expected, rtol=rtol, atol=atol)
    if rows == "all" and name in TORCH:
        with_torch = torch_oracle(name, before[0], grads[0], 0.2, l2)
        torch.testing.assert_close(with_torch, expected, rtol=1e-9, atol=1e-9)
    for p, start, of_p in zip(dense.parameters(), before[1:], grads[1:], strict=True):
        expected = torch_oracle(name, start, of_p, 0.2, l2 / 2)
        torch.testing.assert_close(p.detach().double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_in_bfloat16_are_taken_as_they_are(name):
    torch.manual_seed(3)
    half, full = nn.Parameter(torch.randn(40, 30)), nn.Parameter(torch.empty(40, 30))
    full.data.copy_(half.detach())
    half.grad_dtype = torch.bfloat16
    for p in (half, full):
        generator = torch.Generator().manual_seed(1)
        optimizer = build(name, [p], 0.1, weight_decay=0.01)
        for _ in range(3):
            grad = torch.randn(40, 30, generator=generator).bfloat16()
            p.grad = grad if p is half else grad.float()
            optimizer.step()
        assert p.grad is not None
        assert dense_backend([p], [p.grad]).__name__ == dense_backend([full], [full]).__name__
    assert torch.equal(half, full)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_a_gradient_stay_as_they_are(name):
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = build(name, [unused, used], 0.1, weight_decay=0.5)
    optimizer.step()
    used.grad = torch.ones(3)
    optimizer.step()
    assert unused.tolist() == [1, 1, 1]
    assert (used < 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rows_that_were_not_looked_up_stay_as_they_are(name):
    collection = EmbeddingCollection([1000], 4)
    before = collection.weight.detach().clone()
    optimizer = build(name, collection.parameters(), lr=1.0, embedding_l2=0.1)
    collection(torch.tensor([[3], [3], [7]])).sum().backward()
    optimizer.step()
    changed = (collection.weight.detach() != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [3, 7]


def train(name: str, storage: Storage, steps: int) -> tuple[EmbeddingCollection, Optimizer]:
    torch.manual_seed(5)
    collection = EmbeddingCollection([30, 5], 8, storage=storage)
    # All start from the same numbers: those that bfloat16 can hold.
    collection.weight.data.copy_(collection.weight.detach().bfloat16())
    optimizer = build(name, collection.parameters(), lr=0.01, embedding_l2=0.001)
    for seed in range(steps):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.stack([torch.randint(0, n, (9,), generator=generator) for n in (30, 5)], 1)
        factor = torch.randn(9, 2, 8, generator=generator)
        (collection(ids) * factor).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return collection, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_split_tables_train_as_float32_ones(name):
    full, _ = train(name, "fp32", 20)
    split, optimizer = train(name, "split", 20)
    upper = split.weight.detach().view(torch.int16).int() << 16
    lower = optimizer.state[split.weight]["lower"]
    assert lower.dtype == torch.int16
    assert torch.equal((upper | (lower.int() & 0xFFFF)).view(torch.float32), full.weight.detach())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bfloat16_tables_follow_float32_ones_and_repeat_with_the_seed(name):
    full, _ = train(name, "fp32", 20)
    half, optimizer = train(name, "bf16", 20)
    again, _ = train(name, "bf16", 20)
    assert torch.equal(half.weight, again.weight)
    kept = {k: v.dtype for k, v in optimizer.state[half.weight].items() if k != "step"}
    assert set(kept.values()) <= {torch.float32}
    # Each of at most 20 roundings is off by less than one unit of bfloat16, up or down at random.
    difference = half.weight.float() - full.weight
    unit = full.weight.abs().clamp(min=0.05) * 2**-7
    assert (difference.abs() <= 8 * unit).all()
    assert (difference / unit).mean().abs() < 0.3


def test_an_unknown_optimizer_lists_the_choices():
    with pytest.raises(ConfigError, match="sgd, adagrad, rowwise_adagrad, adam"):
        build("sdg", [], lr=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "optim.lr is 0.0"),
        ({"lr": float("nan")}, "optim.lr is nan"),
        (
            {"name": "adma"},
            r"optim.name is 'adma': it is one of sgd, adagrad, rowwise_adagrad, adam",
        ),
        (
            {"embedding_rows": "some"},
            r"optim.embedding_rows is 'some': it is one of touched, all, auto",
        ),
        ({"weight_decay": -0.1}, "optim.weight_decay is -0.1"),
        ({"embedding_l2": float("nan")}, "optim.embedding_l2 is nan"),
        ({"name": "adam", "beta1": 1.0}, "optim.beta1 is 1.0: it is at least 0 and below 1"),
        ({"name": "adam", "eps": 0.0}, "optim.eps is 0.0: it must be positive"),
        ({"name": "adam", "beta2": -0.5}, "optim.beta2 is -0.5"),
        ({"warmup_steps": -1}, "optim.warmup_steps is -1"),
        ({"warmup_steps": 10, "decay_start": 5, "decay_steps": 3}, "optim.decay_start is 5"),
    ],
)
def test_settings_without_meaning_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**wrong)


def test_the_config_builds_what_it_says():
    config = OptimConfig(
        name="adam", lr=0.5, eps=1e-3, beta1=0.5, beta2=0.6, weight_decay=0.1, embedding_l2=0.2,
        embedding_rows="all",
    )  # fmt: skip
    (group,) = config.build([nn.Parameter(torch.zeros(2))]).param_groups
    names = ("lr", "eps", "beta1", "beta2", "weight_decay", "embedding_l2", "embedding_rows")
    assert {name: group[name] for name in names} == {name: getattr(config, name) for name in names}
    (group,) = OptimConfig(name="adam").build([nn.Parameter(torch.zeros(2))]).param_groups
    assert (group["eps"], group["embedding_rows"]) == (1e-8, "touched")
    (group,) = OptimConfig(name="adagrad").build([nn.Parameter(torch.zeros(2))]).param_groups
    assert group["eps"] == 1e-10


@pytest.mark.parametrize(("size", "rows"), [(4_000_000, "all"), (4_000_001, "touched")])
def test_small_models_have_all_rows_in_a_step(size, rows):
    config = OptimConfig(name="adam", embedding_rows="auto")
    (group,) = config.build(iter([nn.Parameter(torch.zeros(size))])).param_groups
    assert group["embedding_rows"] == rows
