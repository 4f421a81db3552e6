"""The command lines of the original's scripts in `bench/` and `test/`, made small as they are made.

Each script adds its one argument, words of flags, behind its own, and the later flag counts.
"""

import json
from pathlib import Path

import pytest

from .logs import write_log
from .session import ok

DLRM_S_TEST = [
    "--mini-batch-size=1 --data-size=1 --nepochs=1",
    "--mini-batch-size=2 --data-size=4 --nepochs=1",
    "--mini-batch-size=2 --data-size=5 --nepochs=1",
    "--mini-batch-size=2 --data-size=5 --nepochs=3",
]
BENCHMARK = (
    "--mini-batch-size=2048 --test-mini-batch-size=16384 --test-num-workers=0 --num-batches=1000 "
    "--data-generation=random --arch-mlp-bot=512-512-64 --arch-mlp-top=1024-1024-1024-1 "
    "--arch-sparse-feature-size=64 --num-indices-per-lookup=100 --arch-interaction-op=dot "
    "--numpy-rand-seed=727 --print-freq=100 --print-time --enable-profiling "
    f"--arch-embedding-size={'-'.join(['1000000'] * 8)}"
)
BENCHMARK_SMALL = (
    "--num-batches=3 --mini-batch-size=4 --arch-embedding-size=9-9 --num-indices-per-lookup=3 "
    "--arch-mlp-bot=5-64 --arch-mlp-top=4-1"
)
CRITEO = (
    "--data-generation=dataset --loss-function=bce --round-targets=True --print-time "
    "--test-mini-batch-size=16384 --test-num-workers=16"
)
KAGGLE = (
    f"{CRITEO} --arch-sparse-feature-size=16 --arch-mlp-bot=13-512-256-64-16 "
    "--arch-mlp-top=512-256-1 --data-set=kaggle --raw-data-file=./input/train.txt "
    "--processed-data-file=./input/kaggleAdDisplayChallenge_processed.npz --learning-rate=0.1 "
    "--mini-batch-size=128 --print-freq=1024"
)
TERABYTE = (
    f"{CRITEO} --arch-sparse-feature-size=64 --arch-mlp-bot=13-512-256-64 "
    "--arch-mlp-top=512-512-256-1 --max-ind-range=10000000 --data-set=terabyte "
    "--raw-data-file=./input/day --processed-data-file=./input/terabyte_processed.npz "
    "--learning-rate=0.1 --mini-batch-size=2048 --print-freq=1024"
)
RUN_AND_TIME = (
    f"{CRITEO} --arch-sparse-feature-size=128 --arch-mlp-bot=13-512-256-128 "
    "--arch-mlp-top=1024-1024-512-256-1 --max-ind-range=40000000 --data-set=terabyte "
    "--raw-data-file=./input/day --processed-data-file=./input/terabyte_processed.npz "
    "--learning-rate=1.0 --mini-batch-size=2048 --print-freq=2048 --test-freq=102400 "
    "--memory-map --mlperf-logging --mlperf-auc-threshold=0.8025 --mlperf-bin-loader "
    "--mlperf-bin-shuffle"
)
CRITEO_SMALL = (
    "--arch-sparse-feature-size=4 --arch-mlp-bot=13-4 --arch-mlp-top=8-1 --mini-batch-size=20 "
    "--test-freq=4"
)


@pytest.fixture(autouse=True)
def logs(workdir: Path) -> None:
    (workdir / "input").mkdir()
    write_log(workdir / "input" / "train.txt", 140)
    for day in range(24):
        write_log(workdir / "input" / f"day_{day}", 40 if day == 23 else 6, seed=day)


@pytest.mark.parametrize("line", DLRM_S_TEST)
def test_dlrm_s_test(line):
    words = line.split()
    result = ok(*words, "--arch-interaction-op=dot", "--learning-rate=0.1", "--debug-mode")
    assert "updated parameters (weights and bias):" in result.lines


@pytest.mark.parametrize("device", ["", "--use-gpu"])
def test_dlrm_s_benchmark(device, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = ok(*BENCHMARK.split(), *device.split(), *BENCHMARK_SMALL.split())
    assert ("Using CPU..." in result.lines) == bool(device)
    assert [line.split(",")[0] for line in result.losses] == ["Finished training it 3/3 of epoch 0"]
    # What the script moves away afterwards.
    assert {"dlrm_s_pytorch.prof", "dlrm_s_pytorch.json"} <= {p.name for p in Path().iterdir()}


@pytest.mark.parametrize("line", [KAGGLE, TERABYTE], ids=["kaggle", "terabyte"])
def test_dlrm_s_criteo(line):
    result = ok(*line.split(), *CRITEO_SMALL.split())
    assert result.lines[-1].startswith(" accuracy ")


@pytest.mark.parametrize(
    ("threshold", "status"), [("0.8025", "aborted"), ("0.0001", "success"), ("0", "success")]
)
def test_run_and_time(threshold, status):
    words = [*RUN_AND_TIME.split(), *CRITEO_SMALL.split(), "--nepochs=2"]
    lines = ok(*words, f"--mlperf-auc-threshold={threshold}").lines
    events = [json.loads(line[9:]) for line in lines if line.startswith(":::MLLOG {")]
    assert {"namespace", "time_ms", "event_type", "key", "value", "metadata"} == set(events[0])
    assert [e["time_ms"] for e in events] == sorted(e["time_ms"] for e in events)
    keys = [event["key"] for event in events]
    assert keys[:4] == ["cache_clear", "init_start", "init_stop", "run_start"]
    values = {event["key"]: event["value"] for event in events}
    assert values["seed"] == 123
    assert values["global_batch_size"] == 20
    assert values["opt_base_learning_rate"] == 1.0
    # Every interval ends, in the order of brackets.
    open_intervals = []
    for event in events:
        if event["event_type"] == "INTERVAL_START":
            open_intervals.append(event["key"].removesuffix("_start"))
        elif event["event_type"] == "INTERVAL_END":
            assert open_intervals.pop() == event["key"].removesuffix("_stop")
    assert not open_intervals
    assert keys.count("epoch_start") == (1 if threshold == "0.0001" else 2)
    assert keys.count("eval_accuracy") == keys.count("eval_start") > 0
    assert events[-1]["key"] == "run_stop"
    assert events[-1]["metadata"]["status"] == status
