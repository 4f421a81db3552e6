"""Fixtures for the tests of the data rooms."""

import pytest

from dlrm.data import kernels


@pytest.fixture(params=["kernels", "polars"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the kernels in C++, and without."""
    if request.param == "kernels" and not kernels.available():
        pytest.skip("the kernels cannot be compiled here")
    monkeypatch.setattr(kernels, "available", lambda: request.param == "kernels")
