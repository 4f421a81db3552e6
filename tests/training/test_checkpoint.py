import numpy as np
import pytest
import torch
from torch import nn

from dlrm.errors import CheckpointError
from dlrm.metrics import Metrics
from dlrm.nn.embedding import parameter_groups
from dlrm.optim import OPTIMIZERS, build
from dlrm.training import checkpoint
from dlrm.training.progress import Progress


def trained(name: str, steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(steps)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    optimizer = build(name, parameter_groups(model), lr=0.1)
    for _ in range(steps):
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0])])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_everything_comes_back(tmp_path, name, weights):
    model, optimizer = trained(name)
    loss_sum = torch.tensor(0.1 + 0.2, dtype=torch.float64)
    progress = Progress(step=7, epoch=1, batch=2, loss_sum=loss_sum, best_step=7, best_value=0.5)
    progress.seen = Metrics(2)
    progress.seen.update(torch.randn(3, 2), torch.eye(3, 2), weights)
    checkpoint.save(tmp_path, model, optimizer, progress, keep=2)
    expected = torch.rand(4, generator=progress.draws.host)

    fresh, other = trained(name, steps=1)
    loaded = checkpoint.load(tmp_path, 7, fresh, other)
    assert torch.equal(torch.rand(4, generator=loaded.draws.host), expected)
    assert loaded.numbers() == progress.numbers()
    assert loaded.loss_sum == progress.loss_sum
    for ours, theirs in zip(loaded.seen.arrays(), progress.seen.arrays(), strict=True):
        assert ours is theirs is None or np.array_equal(ours, theirs)  # pyright: ignore[reportArgumentType]
    for ours, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert other.state[ours].keys() == optimizer.state[theirs].keys()
        for key, value in optimizer.state[theirs].items():
            assert torch.equal(other.state[ours][key], value)


def test_the_newest_and_the_best_are_kept(tmp_path):
    model, optimizer = trained("sgd")
    for step in range(1, 8):
        progress = Progress(step=step, best_step=min(step, 3))
        checkpoint.save(tmp_path, model, optimizer, progress, keep=2)
    assert checkpoint.steps(tmp_path) == [3, 6, 7]


def test_a_half_written_checkpoint_is_never_read(tmp_path, monkeypatch):
    model, optimizer = trained("sgd")
    checkpoint.save(tmp_path, model, optimizer, Progress(step=1), keep=2)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_sealed", full_disk)
    with pytest.raises(CheckpointError, match=r"No space left.*can be resumed"):
        checkpoint.save(tmp_path, model, optimizer, Progress(step=2), keep=2)
    assert checkpoint.steps(tmp_path) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize("name", ["model", "optimizer", "progress"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damage_is_found_and_named(tmp_path, name, how):
    model, optimizer = trained("adagrad")
    folder = checkpoint.save(tmp_path, model, optimizer, Progress(step=1), keep=2)
    file = folder / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    if how == "flip":
        content[-3] ^= 1
        file.write_bytes(content)
    elif how == "cut":
        file.write_bytes(content[:-5])
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}.safetensors.*remove its folder"):
        checkpoint.load(tmp_path, 1, model, optimizer)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}'])
def test_a_damaged_progress_file_is_named(tmp_path, content):
    model, optimizer = trained("sgd")
    folder = checkpoint.save(tmp_path, model, optimizer, Progress(step=1), keep=2)
    (folder / "progress.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"progress.json"):
        checkpoint.load(tmp_path, 1, model, optimizer)


def test_another_model_is_refused(tmp_path):
    model, optimizer = trained("sgd")
    checkpoint.save(tmp_path, model, optimizer, Progress(step=1), keep=2)
    other = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    with pytest.raises(CheckpointError, match=r"another model: it has .*; .* train it again"):
        checkpoint.load(tmp_path, 1, other, None)
