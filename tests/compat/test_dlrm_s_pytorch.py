"""What runs print beyond the golden values: the original's defects, one test each, and the rest."""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlrm.compat import loop
from dlrm.compat.flags import parse
from dlrm.errors import MissingExtraError

from .logs import write_log
from .session import Result, assert_same_lines, ok, run

TINY = ("--mini-batch-size=2", "--data-size=6")
LEARNING = (
    "--loss-function=bce",
    "--round-targets=True",
    "--mini-batch-size=8",
    "--data-size=64",
    "--learning-rate=0.5",
)
CRITEO = (
    "--data-generation=dataset",
    "--arch-sparse-feature-size=4",
    "--arch-mlp-bot=13-4",
    "--arch-mlp-top=8-1",
    "--loss-function=bce",
    "--learning-rate=0.5",
    "--mini-batch-size=16",
)
TERABYTE = (*CRITEO, "--data-set=terabyte", "--raw-data-file=day")


@pytest.fixture(autouse=True)
def folder(workdir: Path) -> Path:
    return workdir


@pytest.fixture
def train_txt(folder: Path) -> Path:
    return write_log(folder / "train.txt", 210)


def criteo(*arguments: str) -> Result:
    return ok(*CRITEO, "--raw-data-file=train.txt", *arguments)


def accuracies(result: Result) -> list[float]:
    return [float(x) for x in re.findall(r"^ accuracy (\S+) %", result.out, re.MULTILINE)]


def best(result: Result) -> list[float]:
    return [float(x) for x in re.findall(r"best (\S+) %$", result.out, re.MULTILINE)]


# The original's defects.


def test_false_means_false():
    labels = ok(*TINY, "--debug-mode", "--round-targets=False").out
    assert labels == ok(*TINY, "--debug-mode").out
    assert labels != ok(*TINY, "--debug-mode", "--round-targets=True").out
    fixed = "--num-indices-per-lookup-fixed"
    assert ok(*TINY, f"{fixed}=False").out == ok(*TINY).out != ok(*TINY, f"{fixed}=True").out


def test_only_a_better_model_is_saved(folder: Path):
    result = ok(*LEARNING, "--nepochs=6", "--test-freq=2", "--save-model=m.pt")
    accuracy = accuracies(result)
    assert best(result) == [max(accuracy[: i + 1]) for i in range(len(accuracy))]
    blocks = result.out.split("Testing at")[1:]
    better = [a > max(accuracy[:i], default=0) for i, a in enumerate(accuracy)]
    assert ["Saving model to m.pt" in block for block in blocks] == better
    assert 0 < sum(better) < len(better)
    assert (folder / "m.pt").exists()


def test_resuming_in_a_later_epoch_prints_what_the_whole_run_printed():
    policy = ("--optimizer=adagrad", "--learning-rate=0.1", "--numpy-rand-seed=5")
    arguments = (*LEARNING, *policy, "--nepochs=6", "--test-freq=3")
    whole = ok(*arguments, "--save-model=m.pt")
    last = max(i for i, line in enumerate(whole.lines) if line.startswith("Saving"))
    resumed = ok(*arguments, "--load-model=m.pt")
    assert resumed.lines[0] == "Loading saved model m.pt"
    saved_at = re.fullmatch(r"Saved at: epoch = (\d+)/6, batch = (\d+)/8, .*", resumed.lines[1])
    assert saved_at
    assert int(saved_at[1]) >= 1
    assert int(saved_at[2]) < 8
    rest = whole.lines[last + 1 :]
    assert any("of epoch 5" in line for line in rest)
    assert resumed.lines[-len(rest) :] == rest
    assert len(resumed.losses) == sum(line.startswith("Finished") for line in rest)


def test_the_learning_rate_policy_goes_on_after_loading():
    policy = ("--lr-num-warmup-steps=4", "--lr-decay-start-step=6", "--lr-num-decay-steps=20")
    arguments = (*LEARNING, *policy, "--nepochs=3", "--test-freq=8")
    whole = ok(*arguments, "--save-model=m.pt")
    last = max(i for i, line in enumerate(whole.lines) if line.startswith("Saving"))
    rest = whole.lines[last + 1 :]
    assert rest
    assert ok(*arguments, "--load-model=m.pt").lines[-len(rest) :] == rest


def test_a_loaded_model_has_the_accuracy_that_was_saved(train_txt: Path):
    saved = criteo("--nepochs=2", "--test-freq=4", "--save-model=m.pt")
    tested = criteo("--load-model=m.pt", "--inference-only")
    said = re.search(r"^Testing state: accuracy = (\S+) %$", tested.out, re.MULTILINE)
    assert said
    assert accuracies(tested) == [float(said[1])] == [max(accuracies(saved))]
    assert tested.losses == []


@pytest.mark.usefixtures("train_txt")
def test_the_log_can_be_learned():
    result = criteo("--nepochs=8", "--print-freq=100", "--test-freq=100")
    assert accuracies(result)[-1] > 90


@pytest.mark.parametrize(
    ("name", "said"),
    [("trian.txt", r"trian\.txt: there is no such file"), ("", "--raw-data-file is missing")],
)
def test_a_mistyped_path_is_an_error(folder: Path, name: str, said: str):
    result = run(*CRITEO, f"--raw-data-file={name}")
    assert result.status == 1
    assert re.search(said, result.err)
    assert result.err.count("\n") == 1
    assert result.losses == []
    assert [path.name for path in folder.iterdir()] == []


def test_a_bad_row_is_named_and_nothing_is_left(folder: Path, train_txt: Path):
    lines = train_txt.read_text().splitlines()
    lines[99] = lines[99].replace("\t", "\tx", 1)
    train_txt.write_text("\n".join(lines) + "\n")
    result = run(*CRITEO, "--raw-data-file=train.txt")
    assert result.status == 1
    assert "train.txt, line 100, column I1" in result.err
    assert "Traceback" not in result.err
    processed = folder / "kaggleAdDisplayChallenge_processed.npz"
    assert not processed.exists() or not list(processed.iterdir())
    # Once the row is repaired, the same command works.
    write_log(train_txt, 210)
    assert criteo().losses


def test_paths(folder: Path, train_txt: Path):
    bare = criteo("--processed-data-file=here")
    assert (folder / "here").is_dir()
    absolute = ok(*CRITEO, f"--raw-data-file={train_txt}", "--processed-data-file=there")
    assert bare.losses == absolute.losses
    # Prepared data alone are enough.
    train_txt.unlink()
    assert ok(*CRITEO, "--processed-data-file=here").losses == bare.losses
    assert criteo("--processed-data-file=here").losses == bare.losses


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-ind-range=3"], "another --max-ind-range: -1, not 3"),
        (["--data-sub-sample-rate=0.5"], "another --data-sub-sample-rate: 0.0, not 0.5"),
    ],
)
@pytest.mark.usefixtures("train_txt")
def test_prepared_data_of_other_flags_are_refused(arguments: list[str], said: str):
    criteo()
    result = run(*CRITEO, "--raw-data-file=train.txt", *arguments)
    assert result.status == 1
    assert said in result.err
    assert "--processed-data-file" in result.err


def test_prepared_data_of_another_log_are_refused(train_txt: Path):
    criteo()
    write_log(train_txt, 210, seed=1)
    result = run(*CRITEO, "--raw-data-file=train.txt")
    assert result.status == 1
    assert "prepared with another --raw-data-file" in result.err


def test_sub_sampling_by_another_seed_is_another_dataset(train_txt: Path):
    half = "--data-sub-sample-rate=0.5"
    criteo(half)
    result = run(*CRITEO, "--raw-data-file=train.txt", half, "--numpy-rand-seed=1")
    assert "another --numpy-rand-seed: 123, not 1" in result.err


def test_damaged_or_foreign_prepared_data(folder: Path, train_txt: Path):
    (folder / "file.npz").write_bytes(b"PK")
    result = run(*CRITEO, "--raw-data-file=train.txt", "--processed-data-file=file.npz")
    assert "file.npz is a file" in result.err
    criteo("--processed-data-file=made")
    (folder / "made" / "days.json").write_text("{")
    result = run(*CRITEO, "--raw-data-file=train.txt", "--processed-data-file=made")
    assert result.status == 1
    assert "days.json: not JSON" in result.err
    # Killed after the dataset was written and before its days were: it is made again.
    (folder / "made" / "days.json").unlink()
    assert "Reading raw data=train.txt" in criteo("--processed-data-file=made").out


def test_a_learning_rate_policy_without_warm_up():
    decay = ("--lr-decay-start-step=4", "--lr-num-decay-steps=2")
    plain, decayed = ok(*LEARNING), ok(*LEARNING, *decay)
    # The first three steps, counted from 1, have the full learning rate.
    assert decayed.losses[:4] == plain.losses[:4]
    assert decayed.losses[5:] != plain.losses[5:]


# The rest.


def test_print_and_test_frequency():
    def batches(result: Result) -> list[int]:
        return [int(line.split()[3].partition("/")[0]) for line in result.losses]

    assert batches(ok(*LEARNING, "--print-freq=3")) == [3, 6, 8]
    tested = ok(*LEARNING, "--print-freq=100", "--test-freq=3")
    assert batches(tested) == [3, 6, 8]
    assert [line for line in tested.lines if line.startswith("Testing")] == [
        f"Testing at - {number}/8 of epoch 0," for number in (3, 6, 8)
    ]


def test_a_printed_loss_is_the_mean_by_samples_since_the_last():
    def losses(*arguments: str) -> list[float]:
        found = ok("--mini-batch-size=2", "--data-size=5", *arguments).losses
        return [float(line.rpartition(" ")[2]) for line in found]

    each = losses()
    (whole,) = losses("--print-freq=3")
    assert whole == pytest.approx((2 * each[0] + 2 * each[1] + each[2]) / 5, abs=1e-6)


def test_times():
    line = ok(*TINY, "--print-time", "--print-wall-time").losses[-1]
    found = re.fullmatch(r".* epoch 0, (\S+) ms/it, loss \S+ \((\d\d:\d\d)\)", line)
    assert found
    assert float(found[1]) > 0
    time.strptime(found[2], "%H:%M")
    assert " -1.00 ms/it, " in ok(*TINY).losses[-1]


def test_number_of_batches(train_txt: Path):
    assert len(ok("--num-batches=4", "--mini-batch-size=2").losses) == 4
    result = criteo("--num-batches=3", "--test-freq=3", "--test-mini-batch-size=5")
    assert [line.split()[3] for line in result.losses] == ["1/3", "2/3", "3/3"]


def test_loss_threshold():
    bounded = ok(*LEARNING, "--loss-threshold=0.45", "--nepochs=3")
    losses = [float(line.rpartition(" ")[2]) for line in bounded.losses]
    # Probabilities lie in [.45, .55], so the loss of a sample is -log(.55) to -log(.45).
    assert all(0.597 < loss < 0.799 for loss in losses)
    assert bounded.losses != ok(*LEARNING, "--nepochs=3").losses
    unbounded = ok(*LEARNING, "--loss-threshold=1e-7", "--nepochs=3")
    assert unbounded.losses == ok(*LEARNING, "--nepochs=3").losses


def test_loss_weights():
    plain = ok(*LEARNING).losses[0]
    double = ok(*LEARNING, "--loss-function=wbce", "--loss-weights=2-2").losses[0]
    one, two = (float(line.rpartition(" ")[2]) for line in (plain, double))
    assert two == pytest.approx(2 * one, abs=2e-6)


@pytest.mark.parametrize("mode", [[], ["--memory-map"]])
@pytest.mark.usefixtures("train_txt")
def test_criteo_shuffles(mode: list[str]):
    orders = {
        order: criteo(f"--data-randomize={order}", *mode).losses
        for order in ("total", "day", "none")
    }
    assert len({tuple(losses) for losses in orders.values()}) == 3
    seeded = criteo("--data-randomize=none", "--numpy-rand-seed=1", *mode)
    assert seeded.losses != orders["none"]


@pytest.mark.usefixtures("train_txt")
def test_criteo_lines_of_a_shuffle_by_day():
    lines = criteo("--data-randomize=day").lines
    said = ["Randomized indices per day ...", "Defined test indices...", "Split data according to"]
    at = lines.index("Defined test indices...")
    assert [line[: len(s)] for line, s in zip(lines[at - 1 :], said, strict=False)] == said


def test_largest_id(train_txt: Path):
    result = criteo("--max-ind-range=3", "--debug-mode")
    sizes = result.lines[result.lines.index("data (inputs and targets):") - 1]
    rows = [int(size) for size in re.findall(r"\d+", sizes)]
    assert rows
    assert set(rows) <= {1, 2, 3}


def test_terabyte(folder: Path):
    for day in range(24):
        write_log(folder / f"day_{day}", 10 + day % 2, seed=day)
    result = ok(*TERABYTE, "--memory-map", "--test-freq=100")
    assert "Reading data from path=day_23" in result.out
    assert f" {[10, 11] * 12}" in result.out
    assert len(result.losses) == -(-(24 * 21 // 2 - 11) // 16)
    assert ok(*TERABYTE, "--memory-map", "--test-freq=100").losses == result.losses
    (folder / "day_3").unlink()
    missing = run(*TERABYTE, "--processed-data-file=other")
    assert missing.status == 1
    assert "day_3" in missing.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch-sparse-feature-size=3"], "--arch-sparse-feature-size=3 does not match"),
        (["--arch-mlp-top=4-2"], "--arch-mlp-top ends in 2, expected 1"),
        (["--data-generation=synthetic"], "dist_emb_0.log: cannot be read"),
        (["--load-model=no.pt"], "no.pt: no such file"),
        (["--rand-data-dist=gaussian", "--rand-data-max=9", "--rand-data-mu=9"], "table 0: "),
    ],
)
def test_errors_are_one_line(arguments: list[str], said: str):
    result = run(*TINY, *arguments)
    assert result.status == 1
    assert result.err.startswith("dlrm_s_pytorch.py: error: ")
    assert said in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device", "run"), 1, "error: [Errno 28] No space left on"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_ends_a_run_from_outside(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
):
    def ended(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loop.EventWriter, "scalars", ended)
    result = run(*TINY)
    assert result.status == status
    assert result.err.startswith(f"dlrm_s_pytorch.py: {said}")
    assert result.err.count("\n") == 1


def test_too_few_days_to_test_on(folder: Path):
    write_log(folder / "train.txt", 6)
    result = run(*CRITEO, "--raw-data-file=train.txt", "--test-freq=1")
    assert result.status == 1
    assert "no test samples" in result.err


def test_tensorboard(folder: Path, monkeypatch: pytest.MonkeyPatch):
    ok(*TINY, "--test-freq=3", "--tensor-board-filename=events")
    assert list((folder / "events").glob("events.out.tfevents.*"))

    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("TensorBoard events", "tensorboard")

    monkeypatch.setattr(loop, "EventWriter", missing)
    ok(*TINY)
    result = run(*TINY, "--tensor-board-filename=events")
    assert result.status == 1
    assert "opendlrm[tensorboard]" in result.err


def test_the_commands_of_the_guide(train_txt: Path):
    guide = Path(__file__).parents[2] / "docs" / "guides" / "paper.md"
    blocks = re.findall(r"```console\n(.*?)```", guide.read_text(), re.DOTALL)
    blocks = [block for block in blocks if "dlrm_s_pytorch" in block]
    assert len(blocks) == 4
    launched = re.findall(
        r"^\$ (?:torchrun|mpirun) .*?dlrm_s_pytorch (.*)$", blocks[3], re.MULTILINE
    )
    assert len(launched) == 3
    for command in launched:
        # What several processes print is tested in tests/parallel.
        assert parse(shlex.split(command)).not_yet() == []
    results: list[Result] = []
    for block in blocks[:3]:
        for command in re.findall(r"^\$ dlrm_s_pytorch (.*)$", block, re.MULTILINE):
            results.append(ok(*shlex.split(command)))
        said = [line for line in block.splitlines() if not line.startswith("$ ")]
        if said:
            assert_same_lines(results[-1].lines, said)
    assert len(results) == 4
    # The last two train and save, then test.
    assert accuracies(results[3]) == [max(accuracies(results[2]))]


def test_help():
    result = run("--help")
    assert result.status == 0
    assert "--arch-mlp-bot" in result.out


def test_console_script():
    script = str(Path(sys.executable).parent / "dlrm_s_pytorch")
    done = subprocess.run([script, *TINY], capture_output=True, text=True, check=True)
    assert done.stdout == ok(*TINY).out


def test_module():
    module = [sys.executable, "-m", "dlrm.compat.dlrm_s_pytorch", "--save-onnx"]
    failed = subprocess.run(module, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr == "dlrm_s_pytorch.py: not yet: --save-onnx\n"
