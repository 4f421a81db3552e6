"""The original's command line on JAX: what the original prints, and files that PyTorch reads."""

from pathlib import Path

import pytest

from .session import assert_same_lines, ok, read, run

pytest.importorskip("jax")

from dlrm.compat.dlrm_s_jax import main

SMALL = ("--data-size=40", "--mini-batch-size=10", "--loss-function=bce", "--learning-rate=0.3")


@pytest.mark.parametrize(
    "name",
    [
        "01_default",
        "01_default_debug",
        "02_cat_debug",
        "03_itself_debug",
        "05_adagrad_debug",
        "07_bce_medium_debug",
        "10_wbce",
    ],
)
@pytest.mark.usefixtures("workdir")
def test_golden_runs(name: str):
    arguments, expected = read(name)
    assert_same_lines(ok(*arguments, main=main).lines, expected)


def test_what_one_framework_saves_the_other_goes_on_from(workdir: Path):
    arguments = (*SMALL, "--nepochs=2", "--optimizer=adagrad", "--round-targets=True")
    ok(*arguments, "--test-freq=4", "--save-model=m.pt", main=main)
    loading = (*arguments, "--load-model=m.pt")
    assert_same_lines(ok(*loading, main=main).lines, ok(*loading).lines)
    tested = (*loading, "--inference-only")
    assert ok(*tested, main=main).lines == ok(*tested).lines


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--qr-flag", "--qr-threshold=1"), "without --qr-flag"),
        (("--weighted-pooling=learned",), "tables that are compressed"),
        (("--mlperf-logging", "--mlperf-grad-accum-iter=2"), "without --mlperf-grad-accum-iter"),
        (("--inference-only", "--quantize-mlp-with-bit=8"), "without --quantize-mlp-with-bit"),
    ],
)
def test_what_jax_does_not_do_is_said(flags, message):
    result = run(*SMALL, *flags, main=main)
    assert result.status == 1
    assert result.err.startswith("dlrm_s_jax: error: ")
    assert message in result.err
    assert "PyTorch" in result.err or "dlrm_s_pytorch" in result.err


def test_without_jax_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dlrm.runtimes.runtime.find_spec", lambda name: None)
    result = run(*SMALL, main=main)
    assert (result.status, "pip install 'opendlrm[jax]'" in result.err) == (1, True)
