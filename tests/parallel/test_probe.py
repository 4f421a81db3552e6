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


def test_versions_that_fit(installed):
    installed()
    probe()
    installed(torch="2.13.1", fbgemm_gpu_cpu="1.8.2")
    probe()
    installed(torch="2.14.0", fbgemm_gpu_cpu="1.9.0", torchrec="1.9.1")
    probe()


@pytest.mark.parametrize("name", sorted(set(GOOD) - {"torch"}))
def test_a_missing_package_prints_both_lines(installed, name: str):
    installed(**{name.replace("-", "_"): None})
    with pytest.raises(MissingExtraError) as caught:
        probe()
    assert f"pip install 'opendlrm[torchrec]' && {INSTALL}" in str(caught.value)


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
    installed, torch: str, fbgemm: str, torchrec: str, needed: str
):
    installed(torch=torch, fbgemm_gpu_cpu=fbgemm, torchrec=torchrec)
    with pytest.raises(ConfigError) as caught:
        probe()
    message = str(caught.value)
    assert torch in message
    line = f"pip install --no-deps fbgemm-gpu-cpu=={needed}.0 torchrec=={needed}.0"
    assert message.endswith(line)


def test_a_torch_that_no_fbgemm_is_made_for(installed):
    installed(torch="3.0.0")
    with pytest.raises(ConfigError, match=r"torch 3\.0\.0: FBGEMM 1\.X needs torch 2\.\(X\+5\)"):
        probe()


def test_a_gpu_needs_the_other_fbgemm(installed):
    installed()
    with pytest.raises(ConfigError, match=r"--no-deps fbgemm-gpu==1\.8\.0"):
        probe("cuda")
    installed(fbgemm_gpu_cpu=None, fbgemm_gpu="1.8.0")
    probe("cuda")


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
