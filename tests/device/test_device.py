"""Every model on a device that is none: the CPU's numbers, bit for bit, and nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlrm.errors import ConfigError
from dlrm.models import MODELS
from dlrm.training.device import resolve_device

ROOT = Path(__file__).parents[2]


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with the tests as a package."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    words = (sys.executable, *words)
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What every model comes to on both devices, with plain torch, which computes alike."""
    folder = tmp_path_factory.mktemp("device")
    done = run("-m", "tests.device.trainings", str(folder), DLRM_KERNELS="reference")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["model"]: line for line in lines}


@pytest.mark.parametrize("model", MODELS)
def test_a_device_computes_what_the_cpu_computes(model, trainings):
    on_cpu, elsewhere = trainings[model]["cpu"], trainings[model]["pretend"]
    assert isinstance(on_cpu, dict), on_cpu
    assert isinstance(elsewhere, dict), elsewhere
    assert on_cpu.pop("devices") == ["cpu"]
    assert elsewhere.pop("devices") == ["pretend"]
    assert len(on_cpu["losses"]) > 4
    assert on_cpu["losses"] == on_cpu["resumed"]
    for name, values in on_cpu.items():
        assert elsewhere[name] == values, name


def test_a_tensor_that_is_left_behind_is_noticed():
    script = (
        "import torch\nfrom tests.device import pretend\nkept = pretend.install()\n"
        "x = torch.ones(3).to('pretend')\nprint((x + x).cpu().tolist())\nx + torch.ones(3)"
    )
    done = run("-c", script)
    assert done.stdout == "[2.0, 2.0, 2.0]\n"
    assert "a CPU tensor (3,) meets the device pretend" in done.stderr


def test_a_device_that_torch_does_not_know_is_refused():
    with pytest.raises(ConfigError, match='unknown device "gpu"; choose one of: auto, cpu, cuda'):
        resolve_device("gpu")
