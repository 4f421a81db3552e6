"""Fixtures shared by all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers of two threads each wait for one another on two cores; what tests say of threads they
    # set themselves. Before anything imports torch.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What tests compute depends on no measurement; those of measuring say so.
os.environ.setdefault("DLRM_KERNELS", "default")

from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.store import Dataset

# Where tests find `module:Class`, in the processes that they start too: `sign_sgd:SignSGD`.
OWN = str(Path(__file__).parent / "optim")
sys.path.append(OWN)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), OWN]))


@pytest.fixture(scope="session", autouse=True)
def without_power_cuts() -> Iterator[None]:
    """Wait for no disk, as a training does a hundred times; processes that tests start do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A small generated click log, prepared: 2,400 / 300 / 300 rows."""
    out = tmp_path_factory.mktemp("clicks") / "dataset"
    return prepare(ClicksSource(3000, seed=1), out, PrepareConfig(split="chronological")).dataset


def empty_page(run: Path) -> Path:
    (run / "report.html").touch()
    return run / "report.html"


@pytest.fixture(autouse=True)
def empty_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training within a test end in an empty page: drawing it takes longer than all else.

    Tests that read the page ask for `pages`; `dlrm report`, and what trains for a whole module,
    always draw it.
    """
    if "pages" not in request.fixturenames:
        stub = SimpleNamespace(write=empty_page)
        monkeypatch.setattr("dlrm.commands.train.reporting", stub)


@pytest.fixture
def pages() -> None:
    """Let every training draw its page."""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
