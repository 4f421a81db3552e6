"""Traffic models: faithful where they should be, the same for a seed, and safe to read."""

import json

import numpy as np
import pytest

from dlrm.errors import ConfigError, InputError
from dlrm.traces import workload
from dlrm.traces.card import LIMITS, compare
from dlrm.traces.hybrid import Hybrid
from dlrm.traces.measures import Measures
from dlrm.traces.popularity import HeavyHitters, Zipf, fit_zipf, zipf_weights
from dlrm.traces.presets import BINS, PRESETS
from dlrm.traces.recency import LRUStack
from dlrm.traces.trace import Trace
from dlrm.traces.workload import MODELS, Workload

N = 60_000


def source(name: str) -> Trace:
    rng = np.random.default_rng(5)
    weights = 1 / (np.arange(1, 5001) + 2.7)
    zipf = rng.choice(5000, N, p=weights / weights.sum())
    few = rng.choice(5, N, p=[0.6, 0.2, 0.1, 0.07, 0.03])
    ids = {
        "memoryless": zipf,
        "drifting": (zipf + np.arange(N) // 60) % 5000,
        "loop": np.arange(N) % 1700,
        "loop and zipf": np.where(rng.random(N) < 0.3, np.arange(N) % 3000, 3000 + zipf),
        "few ids": few,
        "growing": np.where(rng.random(N) < 0.3, 10_000 + np.arange(N), zipf),
    }[name]
    return Trace.of(name, ids * 7919)


@pytest.mark.parametrize(
    "name", ["memoryless", "drifting", "loop", "loop and zipf", "few ids", "growing"]
)
def test_the_hybrid_is_faithful_and_no_baseline_is_more_so(name):
    trace = source(name)
    measures = Measures(trace)
    cards = {
        kind: compare(measures, Measures(model.fitted(trace).generate(N, seed=3)))
        for kind, model in MODELS.items()
        if kind != "2dio" or name in ("loop", "drifting")
    }

    assert cards["hybrid"].faithful, cards["hybrid"].verdict
    others = min(card.worst for kind, card in cards.items() if kind != "hybrid")
    # A baseline of the very form of the source is as good as chance lets it be.
    assert cards["hybrid"].worst <= max(others, 0.7)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_was_written_generates_the_same(kind, tmp_path):
    trace = source("drifting")
    model = MODELS[kind].fitted(Trace(trace.name, trace.ids[:5000]))
    path = tmp_path / "w.json"
    Workload({"x": model}, dense=4).save(path)
    back = workload.load(path)

    assert back.dense == 4
    one, two = (m.generate(7000, seed=1) for m in (back.features["x"], back.features["x"]))
    assert one.ids.tolist() == two.ids.tolist()
    assert one.ids.tolist() != back.features["x"].generate(7000, seed=2).ids.tolist()
    assert len(one) == 7000
    assert one.ids.min() >= 0
    json.dumps(back.features["x"].to_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", MODELS)
def test_a_stream_keeps_its_state_between_batches(kind):
    model = MODELS[kind].fitted(Trace("x", source("loop").ids[:6000]))
    stream = model.stream(seed=4, size=100)
    parts = np.concatenate([next(stream) for _ in range(30)])

    assert parts.tolist() == model.generate(3000, seed=4).ids.tolist()


def test_no_id_of_the_source_is_in_the_model():
    trace = Trace.of("x", source("growing").ids + 123_456_789_000)
    text = json.dumps(Hybrid.fitted(trace).to_dict())

    assert not any(str(id_) in text for id_ in np.unique(trace.ids)[::50])


def test_pooling_is_generated_too():
    rng = np.random.default_rng(0)
    lengths = rng.choice([0, 1, 5, 20], 9000, p=[0.1, 0.6, 0.2, 0.1])
    trace = Trace.of("x", rng.integers(0, 500, lengths.sum()), lengths)
    generated = Hybrid.fitted(trace).generate(len(trace), seed=1)

    assert generated.lengths is not None
    assert generated.lengths.sum() == len(trace)
    assert compare(Measures(trace), Measures(generated)).pooling < LIMITS["pooling"]
    ids, drawn = Hybrid.fitted(trace).samples(1000)
    assert drawn is not None
    assert (len(drawn), len(ids)) == (1000, drawn.sum())


def test_a_longer_stream_keeps_popular_ids():
    trace = source("memoryless")
    model = Hybrid.fitted(trace)
    model.time = "poisson"
    long = model.generate(3 * N, seed=1)
    thirds = [np.bincount(part, minlength=20_000) for part in np.split(long.ids, 3)]
    top = np.argsort(thirds[0])[-20:]

    assert thirds[2][top].sum() > 0.8 * thirds[0][top].sum()


@pytest.mark.parametrize(("q", "s"), [(0.0, 1.0), (2.7, 0.8), (20.0, 1.4)])
def test_zipf_is_found_by_its_likelihood(q, s):
    weights = zipf_weights(3000, q, s)
    fitted = zipf_weights(3000, *fit_zipf(weights * 1e7))

    assert np.abs(fitted / fitted.sum() - weights / weights.sum()).sum() / 2 < 0.01


@pytest.mark.parametrize("kind", MODELS)
def test_a_short_trace_of_one_id_can_be_fitted_or_says_how_long_it_must_be(kind):
    trace = Trace.of("x", np.array([7, 7]))
    if MODELS[kind].least > 2:
        with pytest.raises(ConfigError, match="needs 1,000 or more"):
            MODELS[kind].fitted(trace)
        trace = Trace.of("x", np.full(1000, 7))

    generated = MODELS[kind].fitted(trace).generate(50)
    assert len(generated) == 50
    assert kind == "lru-stack" or set(generated.ids.tolist()) == {0}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_histogram_they_ask_for(name):
    wanted = PRESETS[name].shares()
    model = PRESETS[name].traffic()
    counts = model.generate(model.accesses).counts
    bins = np.minimum(np.ceil(np.log2(counts)).astype(int), BINS - 1)
    shares = np.bincount(bins, weights=counts, minlength=BINS) / counts.sum()

    assert np.abs(shares - wanted).sum() / 2 < 0.05
    assert abs(model.accesses / PRESETS[name].accesses - 1) < 0.05


def test_fbgemms_configuration_is_read_and_written(tmp_path):
    trace = source("memoryless")
    hitters = HeavyHitters.fitted(trace)
    path = tmp_path / "tbe.json"
    path.write_text(json.dumps(workload.to_fbgemm(hitters, batch_size=512, dim=64)))
    back = workload.load(path).features["table_0"]

    assert isinstance(back, HeavyHitters)
    assert (back.q, back.s, back.distinct) == (hitters.q, hitters.s, hitters.distinct)
    np.testing.assert_allclose(back.shares, hitters.shares)


def test_the_originals_distribution_file_is_read(tmp_path):
    path = tmp_path / "dist_emb_0.log"
    path.write_text("1, 2, 3, 4, 5, 6\n0, 1, 3, 4, 5\n0.55, 0.64, 0.82, 0.91, 1.0\n")
    model = workload.load(path).features["dist_emb_0"]

    assert isinstance(model, LRUStack)
    assert model.distances.tolist() == [-1, 0, 2, 3, 4]
    np.testing.assert_allclose(model.shares, [0.55, 0.09, 0.18, 0.09, 0.09])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 99}, "version is 99"),
        ({"format": "x"}, "its format is 'x'"),
        ({"sha256": "0", "dense": 5}, "altered"),
        ({"features": None}, "damaged"),
    ],
)
def test_other_files_are_errors(tmp_path, change, problem):
    path = tmp_path / "w.json"
    Workload({"x": Zipf(10, 0.0, 1.0, np.empty(0))}).save(path)
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values | change))

    with pytest.raises(InputError, match=problem):
        workload.load(path)


@pytest.mark.parametrize(
    "parameters",
    [
        {"kind": "zipf", "distinct_ids": 0, "q": 0, "s": 1},
        {"kind": "zipf", "distinct_ids": True, "q": 0, "s": 1},
        {"kind": "zipf", "distinct_ids": 3, "q": -2, "s": 1},
        {"kind": "heavy-hitters", "distinct_ids": 3, "q": 0, "s": 1, "shares": [0.9, 0.9]},
        {"kind": "lru-stack", "distances": [-5], "shares": [1]},
        {"kind": "lru-stack", "distances": [], "shares": []},
        {"kind": "hybrid", "accesses": 3, "time": "x", "classes": []},
        {"kind": "hybrid", "accesses": 3, "time": "even", "classes": [{"counts": [[1, 1]]}]},
        {"kind": "other"},
        {},
        3,
    ],
)
def test_parameters_without_a_meaning_are_errors(tmp_path, parameters):
    from dlrm.json_file import write_sealed

    path = tmp_path / "w.json"
    features = {"x": parameters}
    write_sealed(path, {"format": "dlrm-workload", "version": 1, "dense": 1, "features": features})

    with pytest.raises((InputError, ConfigError)):
        workload.load(path)


def test_unknown_presets_list_the_choices():
    with pytest.raises(ConfigError, match="production-2021"):
        workload.load("production-1999")
    with pytest.raises(InputError, match="no such file"):
        workload.load("missing.json")
