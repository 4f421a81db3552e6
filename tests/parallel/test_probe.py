"""The probe says what does not fit, and what to install, before anything is imported."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dlrm.errors import ConfigError, MissingExtraError
from dlrm.parallel.torchrec import probe as module
from dlrm.parallel.torchrec.probe import INSTALL, probe

GOOD = {
    "torch": "2.13.0+cpu",
    "torchrec": "1.8.0",
    "fbgemm-gpu-cpu": "1.8.0",
    "tensordict": "0.15.3",
    "torchmetrics": "1.0.3",
    "tqdm": "4.70.1",
    "pyre-extensions": "0.0.32",
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes packages look installed in these versions, None for not."""

    def install(**other: str | None) -> None:
        found = GOOD | {name.replace("_", "-"): each for name, each in other.items()}

        def version(name: str) -> str:
            if (each := found.get(name)) is None:
                raise PackageNotFoundError(name)
            return each

        monkeypatch.setattr(module, "version", version)

    return install


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been imported in another process."""
    seen: list[str] = []
    monkeypatch.setattr(module, "_try", seen.append)
    return seen


def test_known_good_versions_are_not_tried(installed, tried: list[str]):
    installed()
    probe()
    installed(torch="2.13.1", fbgemm_gpu_cpu="1.8.2")
    probe()
    assert tried == []


@pytest.mark.parametrize("name", sorted(set(GOOD) - {"torch"}))
def test_a_missing_package_prints_both_lines(installed, tried: list[str], name: str):
    installed(**{name.replace("-", "_"): None})
    with pytest.raises(MissingExtraError) as caught:
        probe()
    assert f"pip install 'opendlrm[torchrec]' && {INSTALL}" in str(caught.value)
    assert tried == []


@pytest.mark.parametrize(
    ("torch", "fbgemm", "torchrec", "needed"),
    [
        ("2.13.0+cpu", "1.9.0", "1.8.0", "1.8"),
        ("2.13.0", "1.8.0", "1.7.0", "1.8"),
        ("2.12.1", "1.8.0", "1.8.0", "1.7"),
        ("2.14.0", "1.8.0", "1.8.0", "1.9"),
    ],
)
def test_versions_that_do_not_fit_name_those_that_do(
    installed, tried: list[str], torch: str, fbgemm: str, torchrec: str, needed: str
):
    installed(torch=torch, fbgemm_gpu_cpu=fbgemm, torchrec=torchrec)
    with pytest.raises(ConfigError) as caught:
        probe()
    message = str(caught.value)
    assert torch in message
    line = f"pip install --no-deps fbgemm-gpu-cpu=={needed}.0 torchrec=={needed}.0"
    assert message.endswith(line)
    assert tried == []


def test_a_torch_that_no_fbgemm_is_made_for(installed, tried: list[str]):
    installed(torch="3.0.0")
    with pytest.raises(ConfigError, match=r"torch 3\.0\.0: FBGEMM 1\.X needs torch 2\.\(X\+5\)"):
        probe()
    assert tried == []


def test_versions_that_should_fit_are_tried_elsewhere(installed, tried: list[str]):
    installed(torch="2.14.0", fbgemm_gpu_cpu="1.9.0", torchrec="1.9.1")
    probe()
    assert tried == ["fbgemm-gpu-cpu 1.9.0, torchrec 1.9.1 and torch 2.14.0"]


def test_a_gpu_needs_the_other_fbgemm(installed, tried: list[str]):
    installed()
    with pytest.raises(ConfigError, match=r"--no-deps fbgemm-gpu==1\.8\.0"):
        probe("cuda")
    installed(fbgemm_gpu_cpu=None, fbgemm_gpu="1.8.0")
    probe("cuda")
    assert tried == []


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process ended with -11"),
        ("import ctypes; raise OSError('undefined symbol: x')", "OSError: undefined symbol: x"),
    ],
)
def test_an_import_that_ends_its_process_does_not_end_this_one(code: str, why: str):
    with pytest.raises(ConfigError) as caught:
        module._try("fbgemm-gpu-cpu 1.9.0", code)
    assert f"cannot be imported ({why})" in str(caught.value)
    assert "tested together are torch 2.13, FBGEMM 1.8 and TorchRec 1.8" in str(caught.value)


def test_an_import_that_works_is_fine():
    module._try("anything", "import json")


def test_nothing_is_imported_by_the_probe():
    code = (
        "import sys\n"
        "from dlrm.parallel.torchrec.probe import probe\n"
        "try: probe()\n"
        "except Exception: pass\n"
        "sys.exit(bool({'torchrec', 'fbgemm_gpu'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
