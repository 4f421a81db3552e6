"""A forked child scores, or says at once why it cannot: it never waits for ever."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from dlrm.errors import ForkError

pytest.importorskip("sklearn")
from dlrm.estimators.classifier import Classifier

if "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("no fork here", allow_module_level=True)

N = 300


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    cities = [f"c{k}" for k in rng.integers(0, 9, N)]
    return pl.DataFrame({"city": cities, "price": rng.random(N)})


@pytest.fixture(scope="module")
def classifier(frame) -> Classifier:
    y = (frame["price"] > 0.5).to_numpy()
    return Classifier("lr", epochs=1, batch_size=64).fit(frame, y)


def forked(work: Callable[[], Any]) -> Any:
    """Return what a forked child returns, or the error that it raises."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def child() -> None:
        try:
            results.put(work())
        except Exception as error:
            results.put(error)

    process = context.Process(target=child)
    process.start()
    process.join(60)
    ended = process.exitcode == 0
    process.kill()
    assert ended, "the child waits for ever"
    return results.get()


def test_a_forked_child_scores_plain_rows(classifier, frame):
    expected = classifier.predict_proba(frame)
    np.testing.assert_allclose(forked(lambda: classifier.predict_proba(frame)), expected, rtol=1e-5)
    assert forked(lambda: classifier.predict_proba(frame[:1])).shape == (1, 2)


def test_a_forked_child_says_at_once_what_it_cannot_do(classifier, frame, tmp_path):
    classifier.save(tmp_path / "run")
    texts = frame.with_columns(frame["price"].cast(pl.String))
    labels = np.arange(N) % 2
    for work in (
        lambda: classifier.predict_proba(texts),
        lambda: Classifier("lr", epochs=1).fit(frame, labels),
        lambda: Classifier.load(tmp_path / "run"),
    ):
        error = forked(work)
        assert isinstance(error, ForkError)
        assert "spawn" in str(error)
