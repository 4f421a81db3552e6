"""Shadow traffic: what a second model says of the first one's requests, at no cost to these."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served, serving
from test_server import ROW, infer, rows_of, tensors_of

from dlrm import Predictor
from dlrm.cli import main
from dlrm.errors import ConfigError
from dlrm.serving.comparison import Comparison
from dlrm.serving.limits import Limits
from dlrm.serving.model import BackEnd
from dlrm.serving.repository import Repository
from dlrm.serving.shadow import pairs


@pytest.fixture(scope="module")
def newer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same table, with other scores."""
    run = tmp_path_factory.mktemp("newer") / "run"
    words = ["train", str(folder / "visits.csv"), "--label", "bought", "--no-baseline"]
    assert main([*words, "--max-steps", "9", "--seed", "5", "--run", str(run)]) == 0
    return run


def compared(served: Served, requests: int, name: str = "a") -> dict[str, Any]:
    """Return the comparison, once it has seen so many requests."""
    until = time.monotonic() + 30
    while True:
        (pair,) = served.json("GET", f"/v2/models/{name}/shadow")[1]["shadows"]
        if pair["requests"] + pair["dropped"] + pair["failed"] >= requests:
            return pair
        assert time.monotonic() < until, pair
        time.sleep(0.01)


@given(
    data=st.lists(
        st.lists(st.tuples(*[st.integers(-3, 3)] * 4), min_size=1, max_size=6),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=100, deadline=None)
def test_the_running_numbers_are_those_of_all_rows_at_once(data):
    comparison = Comparison()
    for rows in data:
        values = (np.array(rows) / 4).astype(np.float32).reshape(-1, 2, 2)
        comparison.add(values[:, 0], values[:, 1], 1_000_000, 2_000_000)
    every = np.concatenate([np.array(rows, np.float64).reshape(-1, 2, 2) for rows in data]) / 4
    one, other = every[:, 0], every[:, 1]
    result = comparison.to_dict()
    assert (result["requests"], result["rows"]) == (len(data), len(every))
    assert result["mean_abs_diff"] == pytest.approx(np.abs(one - other).mean())
    assert result["max_abs_diff"] == np.abs(one - other).max()
    assert result["mean_score"] == pytest.approx(one.mean(), abs=1e-12)
    assert result["shadow_mean_score"] == pytest.approx(other.mean(), abs=1e-12)
    if one.std() > 0 and other.std() > 0:
        expected = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert result["correlation"] == pytest.approx(expected, abs=1e-9)
    orders = np.sign(np.diff(one, axis=0)) * np.sign(np.diff(other, axis=0))
    if (orders != 0).any():
        assert result["rank_agreement"] == (orders > 0).sum() / (orders != 0).sum()
    else:
        assert result["rank_agreement"] is None
    assert result["latency_ms"] == {"p50": 1.0, "p99": 1.0}
    assert result["shadow_latency_ms"] == {"p50": 2.0, "p99": 2.0}


def test_scores_are_compared_and_the_primary_s_stay_as_they_are(folder, newer):
    frame = rows_of(folder)
    rows = frame.to_dicts()
    runs = (f"a={folder / 'visits'}", f"b={newer}")
    expected, shadow = (Predictor.open(run).scores(frame) for run in (folder / "visits", newer))
    batch = Predictor.open(folder / "visits").encode(frame)
    with serving(*runs, shadows=["a=b"]) as served:
        answers = [served.json("POST", "/score/a", rows)[1]["scores"]]
        answers += [served.json("POST", "/score/a", row)[1]["score"] for row in rows[:20]]
        client = triton.InferenceServerClient(served.address)
        outputs = infer(client, "a", tensors_of(batch))
        client.close()
        pair = compared(served, 22)
        _, own = served.json("POST", "/score/b", rows)
        text = served.call("GET", "/metrics")[1].decode()
        _, status = served.json("GET", "/status")
        assert served.json("GET", "/v2/models/b/shadow")[1] == {"shadows": []}
        assert served.call("GET", "/v2/models/nobody/shadow")[0] == 404
    assert np.array_equal(np.array(answers[0], np.float32), expected[:, 0])
    assert np.array_equal(np.array(answers[1:], np.float32), expected[:20, 0])
    assert np.array_equal(outputs.as_numpy("scores"), expected)
    # The shadow answers for itself, too.
    assert np.array_equal(np.array(own["scores"], np.float32), shadow[:, 0])
    assert (pair["model"], pair["version"], pair["shadow"], pair["shadow_version"]) == (
        *("a", "1", "b", "1"),
    )
    assert (pair["requests"], pair["rows"], pair["failed"]) == (22, 2 * len(rows) + 20, 0)
    one, other = (np.concatenate([x, x[:20], x])[:, 0].astype(float) for x in (expected, shadow))
    assert pair["mean_abs_diff"] == pytest.approx(np.abs(one - other).mean())
    assert pair["max_abs_diff"] == pytest.approx(np.abs(one - other).max())
    assert pair["correlation"] == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert 0 <= pair["rank_agreement"] <= 1
    label = '{model="a",version="1",shadow="b",shadow_version="1"}'
    assert f"dlrm_shadow_requests{label} 22" in text
    assert f"dlrm_shadow_max_abs_diff{label} {pair['max_abs_diff']}" in text
    assert status["shadows"][0]["requests"] == 22


@pytest.mark.parametrize("trouble", ["raises", "is slow", "has no number", "is not loaded"])
def test_whatever_the_shadow_does_the_primary_answers(folder, newer, trouble, monkeypatch):
    frame = rows_of(folder)
    rows = frame.to_dicts()[:40]
    expected = Predictor.open(folder / "visits").scores(frame)[:40, 0]
    runs = (f"a={folder / 'visits'}", f"b={newer}")
    with serving(*runs, shadows=["a=b"], queue=8) as served:
        predictor = served.repository.find("b").predictor
        go_on = threading.Event()
        logits = predictor.logits

        def troubled(batch):
            if trouble == "raises":
                raise SystemError("shadow")
            if trouble == "is slow":
                go_on.wait(30)
            return logits(batch) * np.nan

        monkeypatch.setattr(predictor, "logits", troubled)
        if trouble == "is not loaded":
            served.repository.unload("b")
        answers = [served.json("POST", "/score/a", row)[1]["score"] for row in rows]
        assert np.array_equal(np.array(answers, np.float32), expected)
        go_on.set()
        pair = compared(served, 40)
    assert pair["requests"] + pair["dropped"] + pair["failed"] == 40
    if trouble == "is slow":
        # One batch of the first is at work, and half a queue waits.
        assert 40 - 1 - 4 - 4 <= pair["dropped"] < 40
    else:
        reasons = {
            "raises": "error",
            "has no number": "no finite score",
            "is not loaded": "not loaded",
        }
        assert set(pair["failures"]) == {reasons[trouble]}
        assert pair["failed"] + pair["dropped"] == 40


def test_rows_that_are_none_of_the_shadow(folder):
    rows = rows_of(folder).to_dicts()[:3]
    batch = Predictor.open(folder / "visits").encode(rows_of(folder))
    with serving(f"a={folder / 'visits'}", folder / "demo", shadows=["a=demo"]) as served:
        assert served.json("POST", "/score/a", rows)[0] == 200
        client = triton.InferenceServerClient(served.address)
        infer(client, "a", tensors_of(batch))
        client.close()
        pair = compared(served, 2)
        assert served.json("POST", "/score/a", ROW)[0] == 200
    assert pair["failures"] == {"other labels": 2}
    assert pair["mean_score"] is None


def test_another_vocabulary_reads_raw_rows_and_no_ids(folder, tmp_path):
    lines = ["city_id,device,price,bought"]
    lines += [f"{k % 11},{'ab'[k % 2]},{k % 7}.5,{int(k % 3 > 1)}" for k in range(300)]
    (tmp_path / "other.csv").write_text("\n".join(lines))
    words = ["train", str(tmp_path / "other.csv"), "--label", "bought", "--no-baseline"]
    assert main([*words, "--max-steps", "4", "--run", str(tmp_path / "run")]) == 0
    batch = Predictor.open(folder / "visits").encode(rows_of(folder))
    with serving(f"a={folder / 'visits'}", f"b={tmp_path / 'run'}", shadows=["a=b"]) as served:
        served.json("POST", "/score/a", ROW)
        client = triton.InferenceServerClient(served.address)
        infer(client, "a", tensors_of(batch))
        client.close()
        pair = compared(served, 2)
    assert pair["requests"] == 1
    assert pair["failures"] == {"other features": 1}


def test_a_newer_version_begins_a_comparison(folder, newer):
    runs = (f"a={folder / 'visits'}", f"b={newer}")
    with serving(*runs, shadows=["a=b"]) as served:
        served.json("POST", "/score/a", ROW)
        assert compared(served, 1)["requests"] == 1
        served.repository.unload("b")
        served.repository.load("b")
        served.json("POST", "/score/a", ROW)
        while (pair := compared(served, 1))["shadow_version"] == "1":
            time.sleep(0.01)
    assert (pair["shadow_version"], pair["requests"]) == ("2", 1)


def test_what_is_no_shadow(folder):
    repository = Repository([f"a={folder / 'visits'}", f"b={folder / 'visits'}"], BackEnd())
    for words, message in (
        (["a"], 'names no model ""'),
        (["a=c"], 'names no model "c"'),
        (["a=a"], "of the model itself"),
        (["a=b", "a=b"], "there twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            pairs(words, repository, Limits())
