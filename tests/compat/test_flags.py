import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlrm.compat import flags
from dlrm.compat.flags import boolean, dash_separated_ints, flag, parse
from dlrm.errors import ConfigError

from .session import GOLDEN, run

# Flag of the original -> its default, as its command line has it.
ORIGINAL = {
    "--arch-sparse-feature-size": "2",
    "--arch-embedding-size": "4-3-2",
    "--arch-mlp-bot": "4-3-2",
    "--arch-mlp-top": "4-2-1",
    "--arch-interaction-op": "dot",
    "--arch-interaction-itself": None,
    "--weighted-pooling": "",
    "--md-flag": None,
    "--md-threshold": "200",
    "--md-temperature": "0.3",
    "--md-round-dims": None,
    "--qr-flag": None,
    "--qr-threshold": "200",
    "--qr-operation": "mult",
    "--qr-collisions": "4",
    "--activation-function": "relu",
    "--loss-function": "mse",
    "--loss-weights": "1.0-1.0",
    "--loss-threshold": "0.0",
    "--round-targets": "False",
    "--data-size": "1",
    "--num-batches": "0",
    "--data-generation": "random",
    "--rand-data-dist": "uniform",
    "--rand-data-min": "0",
    "--rand-data-max": "1",
    "--rand-data-mu": "-1",
    "--rand-data-sigma": "1",
    "--data-trace-file": "./input/dist_emb_j.log",
    "--data-set": "kaggle",
    "--raw-data-file": "",
    "--processed-data-file": "",
    "--data-randomize": "total",
    "--data-trace-enable-padding": "False",
    "--max-ind-range": "-1",
    "--data-sub-sample-rate": "0.0",
    "--num-indices-per-lookup": "10",
    "--num-indices-per-lookup-fixed": "False",
    "--num-workers": "0",
    "--memory-map": None,
    "--mini-batch-size": "1",
    "--nepochs": "1",
    "--learning-rate": "0.01",
    "--print-precision": "5",
    "--numpy-rand-seed": "123",
    "--sync-dense-params": "True",
    "--optimizer": "sgd",
    "--dataset-multiprocessing": None,
    "--inference-only": None,
    "--quantize-mlp-with-bit": "32",
    "--quantize-emb-with-bit": "32",
    "--save-onnx": None,
    "--use-gpu": None,
    "--local_rank": "-1",
    "--dist-backend": "",
    "--print-freq": "1",
    "--test-freq": "-1",
    "--test-mini-batch-size": "-1",
    "--test-num-workers": "-1",
    "--print-time": None,
    "--print-wall-time": None,
    "--debug-mode": None,
    "--enable-profiling": None,
    "--plot-compute-graph": None,
    "--tensor-board-filename": "run_kaggle_pt",
    "--save-model": "",
    "--load-model": "",
    "--mlperf-logging": None,
    "--mlperf-acc-threshold": "0.0",
    "--mlperf-auc-threshold": "0.0",
    "--mlperf-bin-loader": None,
    "--mlperf-bin-shuffle": None,
    "--mlperf-grad-accum-iter": "1",
    "--lr-num-warmup-steps": "0",
    "--lr-decay-start-step": "0",
    "--lr-num-decay-steps": "0",
}


def name_of(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def test_the_list_above_is_the_originals():
    usage = (GOLDEN / "27_fixed.txt").read_text().partition("usage:")[2]
    assert set(re.findall(r"\[(--[\w-]+)", usage)) == set(ORIGINAL)


@pytest.mark.parametrize(("name", "default"), ORIGINAL.items())
def test_every_flag_is_accepted_and_has_the_originals_default(name: str, default: str | None):
    by_default = getattr(parse([]), name_of(name))
    if default is None:
        assert by_default is False
        assert getattr(parse([name]), name_of(name)) is True
    elif name == "--weighted-pooling":
        assert by_default is None
        assert parse([name, "fixed"]).weighted_pooling == "fixed"
    else:
        assert getattr(parse([f"{name}={default}"]), name_of(name)) == by_default
        assert getattr(parse([name, default]), name_of(name)) == by_default


def test_flags_and_fields():
    assert flag("mini_batch_size") == "--mini-batch-size"
    assert flag("local_rank") == "--local_rank"


def test_unambiguous_beginnings_and_the_last_of_two_count():
    assert parse(["--mini=3", "--mini=4"]).mini_batch_size == 4


@pytest.mark.parametrize(
    "name", [name for name, default in ORIGINAL.items() if default in ("True", "False")]
)
def test_booleans_mean_what_they_say(name: str):
    assert getattr(parse([f"{name}=False"]), name_of(name)) is False
    assert getattr(parse([f"{name}=0"]), name_of(name)) is False
    assert getattr(parse([f"{name}=True"]), name_of(name)) is True


@given(st.text(max_size=6))
def test_a_word_that_is_no_boolean_is_refused(word: str):
    words = {"true", "yes", "on", "1", "false", "no", "off", "0"}
    if word.lower() in words:
        assert boolean(word) == (word.lower() in ("true", "yes", "on", "1"))
    else:
        with pytest.raises(Exception, match="not a boolean"):
            boolean(word)


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_dash_separated_ints(sizes: list[int]):
    assert dash_separated_ints("-".join(map(str, sizes))) == tuple(sizes)


NOT_YET = [
    "--data-generation=internal",
    "--save-onnx",
    "--plot-compute-graph",
]


@pytest.mark.parametrize("argument", NOT_YET)
def test_what_is_not_done_yet_is_refused_by_name(argument: str):
    result = run(argument)
    assert result.status == 2
    assert result.out == ""
    name = argument if "internal" in argument else argument.partition("=")[0]
    assert result.err == f"dlrm_s_pytorch.py: not yet: {name}\n"


def test_all_that_is_not_done_yet_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    result = run("--use-gpu", "--save-onnx", "--qr-collisions=8")
    assert result.err.endswith("not yet: --save-onnx, --use-gpu\n")


def test_everything_else_is_done():
    """Each field is either in NOT_YET above or does something, or is known to have no effect."""
    refused = {name_of(argument.partition("=")[0]) for argument in NOT_YET}
    assert {*flags.NOT_YET, "data_generation"} == refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch-mlp-bot=4-x-2"], "4-x-2 is not a valid dash separated list of ints"),
        (["--loss-weights=a-b"], "a-b is not a valid dash separated list of floats"),
        (["--loss-function=hinge"], "choose from"),
        (["--optimizer=adam"], "choose from"),
        (["--qr-operation=max"], "choose from"),
        (["--weighted-pooling=mean"], "choose from"),
        (["--rand-data-dist=zipf"], "choose from"),
        (["--arch-interaction-op=mul"], "choose from"),
        (["--round-targets=maybe"], '"maybe" is not a boolean'),
        (["--mini-batch-size=2.5"], "invalid int value"),
        (["--learning-rat"], "expected one argument"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    ],
)
def test_what_the_parser_refuses(arguments: list[str], said: str):
    result = run(*arguments)
    assert result.status == 2
    assert said in result.err


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--mini-batch-size=0", "--mini-batch-size=0: expected at least 1"),
        ("--data-size=0", "--data-size=0"),
        ("--print-freq=0", "--print-freq=0"),
        ("--num-batches=-1", "--num-batches=-1"),
        ("--num-indices-per-lookup=0", "--num-indices-per-lookup=0"),
        ("--data-sub-sample-rate=1.5", "--data-sub-sample-rate=1.5"),
        ("--dist-backend=pigeon", "--dist-backend=pigeon: choose one of gloo, nccl, mpi, ccl"),
        ("--loss-weights=1-2-3", "--loss-weights takes two numbers, got 3"),
        ("--arch-embedding-size=4-0-2", "--arch-embedding-size=4-0-2"),
        ("--arch-mlp-bot=2", "--arch-mlp-bot=2: expected positive sizes"),
    ],
)
def test_values_without_a_meaning(argument: str, said: str):
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse([argument])
    result = run(argument)
    assert result.status == 1
    assert result.err.count("\n") == 1


def test_decay_must_not_start_before_warm_up_ends():
    policy = ["--lr-num-warmup-steps=5", "--lr-decay-start-step=4"]
    with pytest.raises(ConfigError, match="warmup must finish"):
        parse([*policy, "--lr-num-decay-steps=1"])
    # Without decay there is nothing to start.
    assert parse(policy).lr_num_warmup_steps == 5
