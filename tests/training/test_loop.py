"""Training as a whole: it learns, keeps the best, stops early, and resumes exactly."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dlrm import models
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.store import Dataset
from dlrm.errors import CheckpointError, DatasetError, DivergedError, Interrupted, RunError
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.lr import LRConfig
from dlrm.nn.tables import TablesConfig
from dlrm.ops.choice import choices
from dlrm.optim import OPTIMIZERS
from dlrm.optim.config import OptimConfig
from dlrm.run import Run
from dlrm.training import checkpoint, interrupt
from dlrm.training.average import AverageConfig
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig, to_dict
from dlrm.training.evaluate import measured, predict_split
from dlrm.training.load import load_model, training_stats
from dlrm.training.trainer import Trainer

SMALL = TrainConfig(
    model=DLRMConfig(dim=4, bottom=(8,), top=(8,)),
    optim=OptimConfig(
        name="rowwise_adagrad", lr=0.05, warmup_steps=5, decay_start=30, decay_steps=20
    ),
    loader=LoaderConfig(batch_size=100, seed=3),
    eval=EvalConfig(every=7),
    checkpoint=CheckpointConfig(every=5),
    epochs=2,
    log_every=1,
    seed=4,
    precision="fp32",
)


def fit(config: TrainConfig, dataset: Dataset, run: Run, *, resume: bool = False) -> nn.Module:
    return Trainer(config, dataset, run, again=resume).fit().model


def new_run(path: Path, config: TrainConfig, dataset: Dataset) -> Run:
    return Run.create(
        path,
        recipe="custom",
        config=to_dict(config),
        schema=dataset.schema,
        environment={},
        dataset={"path": str(dataset.path)},
    )


def losses(run: Run) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in run.metrics() if row["event"] == "train"}


def _stop_at(calls: int) -> type[interrupt.Interrupt]:
    """Return an Interrupt that wants to stop once it was asked half so often, once a step."""

    class Stop(interrupt.Interrupt):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 2
            return self.asked > calls

    return Stop


def evaluations(run: Run) -> list[tuple]:
    names = ("step", "split", "auc", "log_loss", "samples")
    return [tuple(row[name] for name in names) for row in run.metrics() if row["event"] == "eval"]


def test_every_step_is_logged_once_and_training_learns(clicks, tmp_path):
    config = replace(SMALL, epochs=8, eval=EvalConfig(every=24))
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    curve = losses(run)
    assert list(curve) == list(range(1, 8 * 24 + 1))
    assert np.mean(list(curve.values())[-24:]) < 0.9 * np.mean(list(curve.values())[:24])


@pytest.mark.parametrize(
    ("optimizer", "stop", "precision"),
    [
        *((optimizer, stop, "fp32") for optimizer in OPTIMIZERS for stop in (1, 24, 31)),
        ("rowwise_adagrad", 17, "bf16"),
    ],
)
def test_a_resumed_run_equals_one_that_never_stopped(clicks, tmp_path, optimizer, stop, precision):
    config = replace(SMALL, optim=replace(SMALL.optim, name=optimizer), precision=precision)
    whole = new_run(tmp_path / "whole", config, clicks)
    straight = fit(config, clicks, whole)

    halved = new_run(tmp_path / "halved", config, clicks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(stop))
        with pytest.raises(Interrupted, match=r"dlrm train --run .* --resume"):
            fit(config, clicks, halved)
    torch.manual_seed(99)
    resumed = fit(config, clicks, halved, resume=True)
    assert losses(halved) == losses(whole)
    assert evaluations(halved) == evaluations(whole)
    for ours, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    newest = [checkpoint.steps(run.path / "checkpoints")[-1] for run in (whole, halved)]
    assert newest == [48, 48]


def test_a_resumed_run_computes_by_the_products_that_it_began_with(clicks, tmp_path, monkeypatch):
    def choose(**used: str) -> None:
        monkeypatch.setattr(choices, "_chosen", used)

    by_torch = {"mlp fp32 below 512": "torch"}
    whole, halved = (new_run(tmp_path / name, SMALL, clicks) for name in ("whole", "halved"))
    choose(**by_torch)
    straight = fit(SMALL, clicks, whole)
    choose(**by_torch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(13))
        with pytest.raises(Interrupted):
            fit(SMALL, clicks, halved)
    folder = checkpoint.folder(halved)
    saved = checkpoint.read_progress(folder, checkpoint.steps(folder)[-1])["choices"]
    assert by_torch.items() <= saved.items()
    # Another process knows of none.
    choose()
    resumed = fit(SMALL, clicks, halved, resume=True)
    assert choices.used() == saved
    ours, theirs = straight.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    choose()
    load_model(halved)
    assert by_torch.items() <= choices.used().items()


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
@pytest.mark.parametrize("storage", ["bf16", "split"])
def test_tables_in_other_storage_resume_exactly_too(clicks, tmp_path, storage, optimizer):
    optim = replace(SMALL.optim, name=optimizer, weight_decay=1e-3, embedding_l2=1e-3)
    model = replace(SMALL.model, tables=TablesConfig(storage=storage))
    config = replace(SMALL, model=model, optim=optim)
    whole = new_run(tmp_path / "whole", config, clicks)
    fit(config, clicks, whole)
    halved = new_run(tmp_path / "halved", config, clicks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(19))
        with pytest.raises(Interrupted):
            fit(config, clicks, halved)
    fit(config, clicks, halved, resume=True)
    assert losses(halved) == losses(whole)


TRAIN = """
import sys
from pathlib import Path
from dlrm.data.store import Dataset
from dlrm.run import Run
from dlrm.training.config import from_dict
from dlrm.training.trainer import Trainer
run = Run.open(Path(sys.argv[1]))
Trainer(from_dict(run.config), Dataset.open(run.dataset["path"]), run, again=True).fit()
"""


KILLED = """
import os, signal, sys
from dlrm.training import checkpoint
from dlrm.training.log import Log
where, at = sys.argv[2], int(sys.argv[3])
step, write_sealed = Log.step, checkpoint.write_sealed
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def step_and_die(log, loss, lr):
    step(log, loss, lr)
    if log.progress.step == at:
        die()
def die_writing(path, values):
    if values["step"] == at:
        die()
    write_sealed(path, values)
if where == "step":
    Log.step = step_and_die
else:
    checkpoint.write_sealed = die_writing
"""


def test_a_run_killed_again_and_again_resumes_to_the_same_losses(clicks, tmp_path):
    whole = new_run(tmp_path / "whole", SMALL, clicks)
    fit(SMALL, clicks, whole)
    run = new_run(tmp_path / "killed", SMALL, clicks)
    # Before the first checkpoint, between two, at the end of an epoch, and in the middle of
    # writing one.
    moments = [("step", 3), ("step", 9), ("save", 15), ("step", 24), ("save", 25), ("step", 47)]
    for where, at in moments:
        command = [sys.executable, "-c", KILLED + TRAIN, str(run.path), where, str(at)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", TRAIN, str(run.path)], check=True)
    assert losses(run) == losses(whole)
    assert evaluations(run) == evaluations(whole)


def test_ctrl_c_saves_and_says_how_to_go_on(clicks, tmp_path):
    run = new_run(tmp_path / "run", replace(SMALL, epochs=400), clicks)
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(run.path)], stderr=subprocess.PIPE)
    while process.poll() is None and max(losses(run), default=0) < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert b"stopped and saved at step" in stderr
    step = checkpoint.steps(run.path / "checkpoints")[-1]
    assert step == max(losses(run))


def test_the_best_model_is_really_the_best(clicks, tmp_path):
    config = replace(
        SMALL,
        optim=OptimConfig(name="adagrad", lr=0.3),
        epochs=6,
        eval=EvalConfig(every=12, metric="log_loss"),
        checkpoint=CheckpointConfig(keep=1),
    )
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    held_out = [row for row in run.metrics() if row.get("split") == "validation"]
    best = min(held_out, key=lambda row: row["log_loss"])
    # The rate is high enough to overfit, or this test would show nothing.
    assert best["step"] < held_out[-1]["step"]
    model = models.build(config.model, clicks.schema)
    checkpoint.load_best(run, model)
    predictions = predict_split(model, clicks.split("validation"), 1000)
    assert measured(predictions, clicks.schema).mean("log_loss") == pytest.approx(
        best["log_loss"], rel=1e-6
    )


@pytest.mark.parametrize("average", [AverageConfig(), AverageConfig(share=1.0, every=3)])
def test_a_run_is_evaluated_by_what_its_best_model_predicted(clicks, tmp_path, average):
    config = replace(
        SMALL,
        optim=OptimConfig(name="adagrad", lr=0.3),
        average=average,
        epochs=6,
        eval=EvalConfig(every=12, metric="log_loss", splits=("validation", "test")),
    )
    trainer = Trainer.create(tmp_path / "run", "custom", config, clicks)
    trained, run = trainer.fit(), trainer.run
    # The last model is another one, or this test would show less.
    assert checkpoint.best_step(run) < checkpoint.steps(checkpoint.folder(run))[-1]
    assert set(trained.scored) == {"validation", "test"}
    best = load_model(run)
    for name, predictions in trained.scored.items():
        anew = predict_split(best, clicks.split(name), 33)
        for ours, theirs in zip(predictions.arrays(), anew.arrays(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert trainer.evaluate(trained) == trainer.evaluate(trained._replace(scored={}))
    # Another process does not know what this one predicted.
    assert Trainer(config, clicks, run, again=True).fit().scored == {}


def test_early_stopping_waits_as_long_as_asked(clicks, tmp_path):
    config = replace(
        SMALL,
        optim=OptimConfig(name="adagrad", lr=0.3),
        epochs=50,
        eval=EvalConfig(every=12, metric="log_loss", patience=3),
    )
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    rows = [row for row in run.metrics() if row.get("split") == "validation"]
    best = min(range(len(rows)), key=lambda i: rows[i]["log_loss"])
    assert len(rows) == best + 1 + 3 < 50 * 2
    assert run.metrics()[-1]["event"] == "early_stop"
    # A finished run has nothing left to do.
    before = run.metrics()
    fit(config, clicks, run, resume=True)
    assert run.metrics() == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_numbers_that_are_none_stop_the_run(clicks, tmp_path, precision):
    config = replace(SMALL, optim=OptimConfig(name="sgd", lr=1e18), precision=precision)
    run = new_run(tmp_path / "run", config, clicks)
    with pytest.raises(DivergedError, match=r"--optim.lr"):
        fit(config, clicks, run)


def test_kernels_and_plain_torch_learn_the_same_for_a_thousand_steps(clicks):
    kernels = thousand_losses("cpu", clicks)
    plain, reordered = (thousand_losses("reference", clicks, order=order) for order in ("0", "1"))
    # An input of a ReLU may come so close to zero that the order in which samples are added up
    # decides its sign; from there on plain torch alone goes one of two ways.
    parted = np.abs(reordered / plain - 1) > 1e-5
    steps = int(parted.argmax()) if parted.any() else len(plain)
    assert len(kernels) == 1000
    assert steps > 400
    np.testing.assert_allclose(kernels[:steps], plain[:steps], rtol=1e-4)


def thousand_losses(kernels: str, dataset: Dataset, order: str = "0") -> np.ndarray:
    """Train for a thousand steps, with the samples of each batch in an order of a seed if not 0."""
    command = [sys.executable, "-c", THOUSAND, str(dataset.path), order]
    environment = {**os.environ, "DLRM_KERNELS": kernels}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return np.array([float(line) for line in out.stdout.split()])


THOUSAND = """
import sys
import torch
from dlrm import models, optim
from dlrm.data.loader import Loader
from dlrm.data.store import Dataset
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import parameter_groups
from dlrm.training.loss import LossConfig, loss_function
from dlrm.training.reordered import Reordered
from dlrm.training.step import TrainStep
dataset = Dataset.open(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(4)
model = models.build(DLRMConfig(dim=8, bottom=(16,), top=(16,)), dataset.schema)
optimizer = optim.build("sgd", parameter_groups(model), 0.05)
order = int(sys.argv[2])
if order:
    model = Reordered(model, order)
step = TrainStep(model, optimizer, loss_function(LossConfig()))
loader = Loader(dataset.split("train"), batch_size=60, shuffle=True)
for epoch in range(25):
    for batch in loader.epoch(epoch):
        print(step(batch).item())
"""


def test_max_steps_ends_training(clicks, tmp_path):
    config = replace(SMALL, max_steps=10)
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    assert max(losses(run)) == 10
    assert checkpoint.steps(run.path / "checkpoints")[-1] == 10


def test_a_damaged_checkpoint_is_not_resumed(clicks, tmp_path):
    config = replace(SMALL, max_steps=10)
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    newest = run.path / "checkpoints" / "step-000000010" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors"):
        fit(config, clicks, run, resume=True)


def test_another_model_does_not_resume_a_run(clicks, tmp_path):
    config = replace(SMALL, max_steps=10)
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    with pytest.raises(CheckpointError, match="another model"):
        fit(replace(config, model=LRConfig()), clicks, run, resume=True)


def test_a_run_without_a_checkpoint_has_no_best_model(clicks, tmp_path):
    run = new_run(tmp_path / "run", SMALL, clicks)
    with pytest.raises(RunError, match="no checkpoint yet"):
        checkpoint.load_best(run, models.build(SMALL.model, clicks.schema))


def test_test_rows_choose_nothing_unless_they_are_asked_to(tmp_path):
    source = ClicksSource(2000, seed=1)
    dataset = prepare(
        source, tmp_path / "data", PrepareConfig(split="chronological", fractions=(0.8, 0, 0.2))
    ).dataset
    both = EvalConfig(every=7, splits=("validation", "test"))
    for settings, chosen in ((both, False), (replace(both, splits=("test",)), True)):
        config = replace(SMALL, max_steps=14, eval=settings)
        run = new_run(tmp_path / "-".join(settings.splits), config, dataset)
        fit(config, dataset, run)
        assert any(row["event"] == "best" for row in run.metrics()) == chosen
        assert any(row.get("split") == "test" for row in run.metrics())


@pytest.mark.parametrize("rows", [2, 3, 101])
@pytest.mark.parametrize("settings", [{}, {"max_steps": 1}, {"epochs": 3, "log_every": 50}])
def test_training_may_be_as_short_as_it_is(tmp_path, rows, settings):
    config = PrepareConfig(split="chronological", fractions=(1, 0, 0))
    dataset = prepare(ClicksSource(rows, seed=1), tmp_path / "data", config).dataset
    short = replace(SMALL, **{"epochs": 1, "eval": EvalConfig(), **settings})
    run = new_run(tmp_path / "run", short, dataset)
    fit(short, dataset, run)
    steps = min(short.epochs * -(-rows // 100), short.max_steps or 99)
    # The last step is logged however few there are.
    assert max(losses(run)) == steps
    assert training_stats(run).step == steps
    assert training_stats(run).samples_per_s > 0
    assert checkpoint.steps(run.path / "checkpoints")[-1] == steps


def test_a_single_row_teaches_nothing_and_is_refused(tmp_path):
    config = PrepareConfig(split="chronological", fractions=(1, 0, 0))
    dataset = prepare(ClicksSource(1, seed=1), tmp_path / "data", config).dataset
    with pytest.raises(DatasetError, match="in all 1 training rows: nothing to learn"):
        Trainer.create(tmp_path / "run", "custom", SMALL, dataset)


def test_stopping_early_before_the_first_line_logs_the_last_step(clicks, tmp_path):
    config = replace(
        SMALL,
        optim=OptimConfig(name="adagrad", lr=0.3),
        epochs=50,
        eval=EvalConfig(every=3, metric="log_loss", patience=2),
        log_every=10_000,
    )
    run = new_run(tmp_path / "run", config, clicks)
    fit(config, clicks, run)
    (stopped,) = [row for row in run.metrics() if row["event"] == "early_stop"]
    assert list(losses(run)) == [stopped["step"]]
    assert training_stats(run).step == stopped["step"]


def test_a_run_that_was_stopped_at_once_has_trained_no_line_yet(clicks, tmp_path):
    config = replace(SMALL, log_every=100)
    run = new_run(tmp_path / "run", config, clicks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(0))
        with pytest.raises(Interrupted, match="step 1;"):
            fit(config, clicks, run)
    with pytest.raises(RunError, match="has trained no step yet"):
        training_stats(run)
    whole = new_run(tmp_path / "whole", config, clicks)
    fit(config, clicks, whole)
    fit(config, clicks, run, resume=True)
    assert losses(run) == losses(whole)


@pytest.mark.parametrize("stop", [5, 14])
def test_losses_between_lines_are_kept_when_a_run_resumes(clicks, tmp_path, stop):
    config = replace(SMALL, log_every=4)
    whole, halved = (new_run(tmp_path / name, config, clicks) for name in ("whole", "halved"))
    fit(config, clicks, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlrm.training.loop.Interrupt", _stop_at(2 * stop))
        with pytest.raises(Interrupted):
            fit(config, clicks, halved)
    fit(config, clicks, halved, resume=True)
    assert losses(halved) == losses(whole)


def test_a_line_is_the_mean_of_the_losses_since_the_last(clicks, tmp_path):
    each, some = (replace(SMALL, log_every=every) for every in (1, 5))
    runs = [new_run(tmp_path / str(c.log_every), c, clicks) for c in (each, some)]
    for config, run in zip((each, some), runs, strict=True):
        fit(config, clicks, run)
    single, lines = (losses(run) for run in runs)
    assert list(lines) == [*range(5, 48, 5), 48]
    for first, (step, loss) in zip([0, *lines], lines.items(), strict=False):
        assert loss == pytest.approx(np.mean([single[s] for s in range(first + 1, step + 1)]))
