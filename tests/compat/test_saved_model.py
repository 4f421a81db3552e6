import pickle
from pathlib import Path

import pytest
import torch
from numpy.random import RandomState

from dlrm.batch import Batch
from dlrm.compat import saved_model
from dlrm.compat.saved_model import State
from dlrm.errors import CheckpointError
from dlrm.models import DLRMConfig
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import materialize, parameter_groups
from dlrm.optim import OPTIMIZERS, build
from dlrm.schema import Schema

STATE = State(
    epoch=2,
    iteration=7,
    steps=31,
    epochs=4,
    batches=12,
    test_batches=3,
    train_loss=0.1 + 0.2,
    test_accuracy=2 / 3,
    optimizer="sgd",
)


def new_model(dim: int = 3) -> DLRM:
    config = DLRMConfig(dim=dim, bottom=(), top=(3,))
    return materialize(config.build(Schema.one_hot(2, [5, 4])))


def step(model: DLRM, optimizer: torch.optim.Optimizer) -> None:
    batch = Batch(torch.ones(2, 2), torch.tensor([[1, 2], [3, 2]]), torch.tensor([[0.0], [1.0]]))
    optimizer.zero_grad()
    (model(batch) - batch.labels).square().sum().backward()
    optimizer.step()


def save(path: Path) -> DLRM:
    model = new_model()
    saved_model.save(path, STATE, model, build("sgd", parameter_groups(model), 0.1), RandomState(1))
    return model


def load(path: Path, model: DLRM | None = None, name: str = "sgd") -> State:
    model = model or new_model()
    optimizer = build("sgd", parameter_groups(model), 0.1)
    return saved_model.load(path, name, model, optimizer, RandomState(2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_bit_by_bit(tmp_path: Path, name: str):
    model, rng = new_model(), RandomState(1)
    optimizer = build(name, parameter_groups(model), 0.1)
    rng.normal(size=3)
    step(model, optimizer)
    saved_model.save(tmp_path / "m.pt", STATE, model, optimizer, rng)

    other, other_rng = new_model(), RandomState(2)
    other_optimizer = build(name, parameter_groups(other), 0.1)
    assert saved_model.load(tmp_path / "m.pt", "sgd", other, other_optimizer, other_rng) == STATE
    for both in ((model, optimizer), (other, other_optimizer)):
        step(*both)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    # An odd number of normal draws leaves one in store, and that is kept too.
    assert rng.normal(size=3).tolist() == other_rng.normal(size=3).tolist()


def test_only_the_model_is_wanted(tmp_path: Path):
    model, other, rng = save(tmp_path / "m.pt"), new_model(), RandomState(2)
    assert saved_model.load(tmp_path / "m.pt", "adagrad", other, None, rng) == STATE
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    assert rng.random_sample() == RandomState(2).random_sample()


def test_a_pickle_is_refused_and_does_not_run(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "trapped",)

    for name, write in {"torch": torch.save, "pickle": None}.items():
        path = tmp_path / name
        if write:
            write({"state_dict": Trap()}, path)
        else:
            path.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(CheckpointError, match="files pickled by the original are not loaded"):
            load(path)
    assert not (tmp_path / "trapped").exists()


def test_any_altered_byte_is_noticed(tmp_path: Path):
    path = tmp_path / "m.pt"
    save(path)
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    for place in (*range(0, header + 8, 5), *range(header + 8, len(content), 97)):
        altered = bytearray(content)
        altered[place] ^= 0x10
        path.write_bytes(altered)
        with pytest.raises(CheckpointError):
            load(path)


@pytest.mark.parametrize("size", [0, 7, 500])
def test_a_truncated_file_is_noticed(tmp_path: Path, size: int):
    path = tmp_path / "m.pt"
    save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"m\.pt: not a model that --save-model wrote"):
        load(path)


def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path: Path):
    save(tmp_path / "m.pt")
    other = new_model(dim=2)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"another model: it has .*, expected"):
        load(tmp_path / "m.pt", other)
    with pytest.raises(CheckpointError, match="saved with --optimizer=sgd, this run has adagrad"):
        load(tmp_path / "m.pt", name="adagrad")
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "n.pt")
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.pt"
    save(path)
    content = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_model, "write_tensors", full)
    with pytest.raises(CheckpointError, match=r"m\.pt: cannot be written: .*No space left"):
        save(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt"]


def test_a_file_can_be_read_by_whom_the_umask_allows(tmp_path: Path):
    (tmp_path / "other").touch()
    save(tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "no" / "m.pt")
