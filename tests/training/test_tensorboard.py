import sys
from pathlib import Path

import pytest

from dlrm.errors import MissingExtraError
from dlrm.training.tensorboard import EventWriter


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard would show, by name: (step, value)."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    ).EventAccumulator(str(folder))
    loader.Reload()
    return {
        name: [(event.step, event.value) for event in loader.Scalars(name)]
        for name in loader.Tags()["scalars"]
    }


def test_what_is_written_is_shown(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events")
    writer.scalars(1, {"train/loss": 0.5, "validation/auc": 0.75})
    writer.scalars(2, {"train/loss": 0.25, "validation/auc": None})
    writer.close()
    assert read(tmp_path / "events") == {
        "train/loss": [(1, 0.5), (2, 0.25)],
        "validation/auc": [(1, 0.75)],
    }


@pytest.mark.parametrize("at", [0, 3])
def test_a_resumed_run_shows_each_step_once(tmp_path: Path, at: int) -> None:
    first = EventWriter(tmp_path)
    for step in range(1, 6):
        first.scalars(step, {"train/loss": float(step)})
    first.close()
    second = EventWriter(tmp_path, resumed_at=at)
    for step in range(at + 1, 9):
        second.scalars(step, {"train/loss": float(step)})
    second.close()
    assert read(tmp_path) == {"train/loss": [(step, float(step)) for step in range(1, 9)]}


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"opendlrm\[tensorboard\]"):
        EventWriter(tmp_path)
