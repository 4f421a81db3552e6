"""`dlrm train --framework jax`: runs like those of PyTorch, which resume exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlrm.cli import main
from dlrm.data.loader import LoaderConfig
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRMConfig
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training.average import AverageConfig
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig
from dlrm.training.log import Log
from dlrm.training.loop import Loop, NewStep
from dlrm.training.trainer import Trainer

pytest.importorskip("jax")

from dlrm.runtimes.jax.step import jax_step

SMALL = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
    optim=OptimConfig(name="adam", lr=0.01, warmup_steps=5),
    # 24 batches an epoch, and one of 50 samples.
    loader=LoaderConfig(batch_size=98, seed=3),
    eval=EvalConfig(every=14),
    average=AverageConfig(decay=0.9, every=2),
    checkpoint=CheckpointConfig(every=5),
    max_steps=40,
    epochs=2,
    log_every=1,
    seed=4,
    precision="fp32",
    device="cpu",
    importance=False,
)
JAX = replace(SMALL, framework="jax")


class Killed(BaseException):
    """Stands for SIGKILL: nothing is saved on the way out."""


def fit(path: Path, config: TrainConfig, dataset: Dataset, new_step: NewStep) -> nn.Module:
    if path.exists():
        trainer = Trainer(config, dataset, Run.open(path), again=True)
    else:
        trainer = Trainer.create(path, "custom", config, dataset)
    return replace(trainer, new_step=new_step).fit().model


def rows(path: Path, event: str, *names: str) -> list[list[Any]]:
    metrics = Run.open(path).metrics()
    return [[row[name] for name in names] for row in metrics if row["event"] == event]


def test_losses_and_evaluations_are_those_of_pytorch_and_a_killed_run_resumes_exactly(
    clicks, tmp_path, monkeypatch
):
    theirs = fit(tmp_path / "torch", SMALL, clicks, Loop.step)
    ours = fit(tmp_path / "jax", JAX, clicks, jax_step)
    for event, *names in (("train", "step", "loss", "lr"), ("eval", "step", "log_loss", "auc")):
        for a, b in zip(
            rows(tmp_path / "jax", event, *names), rows(tmp_path / "torch", event, *names),
            strict=True,
        ):  # fmt: skip
            assert a == pytest.approx(b, rel=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        # Adam makes as large a step of a gradient that is next to nothing as of any other.
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    # Dropped units are JAX's own choice.
    config = replace(JAX, model=replace(JAX.model, dropout=0.3))
    ours = fit(tmp_path / "dropout", config, clicks, jax_step)
    assert rows(tmp_path / "dropout", "train", "loss") != rows(tmp_path / "jax", "train", "loss")

    step = Log.step
    # Before the first checkpoint, behind an evaluation, behind the short batch.
    for at in (3, 15, 27):

        def step_and_die(log: Log, loss: torch.Tensor, lr: float, at: int = at) -> None:
            step(log, loss, lr)
            if log.progress.step == at:
                raise Killed

        monkeypatch.setattr(Log, "step", step_and_die)
        with pytest.raises(Killed):
            fit(tmp_path / "killed", config, clicks, jax_step)
    monkeypatch.undo()
    resumed = fit(tmp_path / "killed", config, clicks, jax_step)
    for event, *names in (("train", "step", "loss"), ("eval", "step", "log_loss", "auc")):
        killed = rows(tmp_path / "killed", event, *names)
        assert killed == rows(tmp_path / "dropout", event, *names)
    for a, b in zip(resumed.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_command_trains_evaluates_and_predicts(workdir, capsys):
    words = ["--data", "clicks:1500", "--max-steps", "4", "--loader.batch-size", "64"]
    words += ["--model.bottom", "8", "--model.top", "8", "--run", "run", "--no-importance"]
    assert main(["train", "demo", *words, "--framework", "jax"]) == 0
    config = Run.open(Path("run")).config
    assert (config["framework"], config["precision"], config["device"]) == ("jax", "fp32", "cpu")
    assert main(["eval", "run"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "bf16"], "precision is bf16: with --framework jax it must be fp32"),
        (["--device", "cuda"], "device is cuda: with --framework jax it must be cpu"),
        (["--engine", "torchrec"], "engine is torchrec: with --framework jax it must be dlrm"),
        (["--procs", "2"], "framework is jax, which trains on one process, and there are 2"),
        (["--model.batch-norm"], "JAX does not train batch norm"),
    ],
)
def test_what_jax_does_not_do_is_said(flags, message, workdir, capsys):
    assert main(["train", "demo", "--data", "clicks:1500", "--framework", "jax", *flags]) != 0
    assert message in " ".join(capsys.readouterr().err.split())


def test_without_jax_the_line_that_installs_it_is_said(workdir, capsys, monkeypatch):
    monkeypatch.setattr("dlrm.runtimes.runtime.find_spec", lambda name: None)
    assert main(["train", "demo", "--data", "clicks:1500", "--framework", "jax"]) != 0
    assert "pip install 'opendlrm[jax]'" in capsys.readouterr().err
    assert list(workdir.iterdir()) == []


def test_commands_that_train_by_themselves_do_so_with_pytorch_alone(clicks, tmp_path):
    with pytest.raises(ConfigError, match="framework is jax, which `dlrm train` alone takes"):
        fit(tmp_path / "run", JAX, clicks, Loop.step)
