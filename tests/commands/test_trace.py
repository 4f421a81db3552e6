"""`dlrm trace`, and generated traffic as data."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dlrm.cli import main
from dlrm.commands.trace.compare import trace_compare
from dlrm.commands.trace.fit import trace_fit
from dlrm.commands.trace.generate import trace_generate
from dlrm.commands.trace.profile import trace_profile
from dlrm.data.resolve import resolve
from dlrm.errors import ConfigError, InputError
from dlrm.traces import formats
from dlrm.traces.popularity import HeavyHitters
from dlrm.traces.trace import Trace
from dlrm.traces.workload import Workload


@pytest.fixture
def traces(workdir: Path) -> Path:
    """Two features, of one id and of bags, in a file."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, 4000)
    users = rng.zipf(1.3, 4000) % 300
    items = (rng.zipf(1.2, lengths.sum()) + np.repeat(np.arange(4000), lengths) // 50) % 900
    formats.write(Path("traces.npz"), [Trace.of("users", users), Trace.of("items", items, lengths)])
    return Path("traces.npz")


def test_profile_measures_each_feature_and_writes_it(traces, capsys):
    assert main(["trace", "profile", str(traces), "--out", "p.json", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert set(result["features"]) == {"users", "items"}
    assert result["features"]["items"]["samples"] == 4000
    assert json.loads(Path("p.json").read_text()) == result
    assert set(result["correlation"]) == {"users x items"}


def test_a_sampled_profile_says_of_how_many_ids(traces):
    result = trace_profile(str(traces), features=("items",), sample=100)

    assert 0 < result.features["items"]["sampled_share"] < 1


def test_fit_generate_and_compare(traces):
    fitted = trace_fit(str(traces), out=Path("w.json"))
    trace_generate("w.json", out=Path("g.npz"), accesses=4000, seed=3)
    result = trace_compare(str(traces), "w.json", html=Path("t.html"), baselines=False)

    assert set(fitted.cards) == set(result.cards) == {"users", "items"}
    assert result.status == (0 if all(c["trace"].faithful for c in result.cards.values()) else 1)
    assert {t.name: len(t) for t in formats.read(Path("g.npz"))} == {"users": 4000, "items": 4000}
    html = Path("t.html").read_text()
    assert html.count("<figure") == 12
    assert not re.search(r"(src|href)=.https?:", html)


def test_compare_shows_baselines_and_knows_a_bad_trace(traces, capsys):
    rng = np.random.default_rng(1)
    formats.write(Path("other.npy"), [Trace.of("users", rng.integers(0, 300, 4000))])

    status = main(["trace", "compare", str(traces), "other.npy", "--features", "users", "--json"])

    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 1
    assert not result["faithful"]
    assert set(result["cards"]["users"]) > {"trace", "uniform", "lru-stack", "2dio"}


def test_a_prepared_dataset_is_a_source_in_the_order_of_its_rows(workdir):
    rows = 3000
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "c": [f"v{i}" for i in rng.zipf(1.5, rows) % 50],
            "l": [[f"i{j}" for j in rng.integers(0, 9, k)] for k in rng.integers(1, 4, rows)],
        }
    )
    frame.write_parquet("t.parquet")
    assert main(["data", "prepare", "table", "t.parquet", "--label", "y", "--out", "d"]) == 0

    result = trace_profile("d")

    dataset = resolve("d")
    train = dataset.split("train")
    assert set(result.features) == {"c", "l"}
    assert result.features["c"]["accesses"] == len(train)
    assert train.lists is not None
    assert result.features["l"]["accesses"] == len(train.lists.ids)


def test_traffic_trains_and_is_prepared_again_only_when_it_changes(traces, capsys):
    trace_fit(str(traces), out=Path("w.json"), features=("users",), dense=2)
    first, again, other = (resolve(f"trace:w.json:3000{seed}") for seed in ("", "", ":1"))

    assert first.path == again.path != other.path
    assert len(first.schema.dense) == 2
    counts = {split: len(first.split(split)) for split in first.splits}
    assert sum(counts.values()) == 3000
    words = ["train", "demo", "--data", "trace:w.json:3000", "--max-steps", "3", "--no-baseline"]
    assert main([*words, "--run", "r"]) == 0


def test_traffic_keeps_its_locality_on_the_road_to_batches(workdir):
    model = HeavyHitters(500, 1.0, 1.1, np.array([0.2, 0.1]))
    Workload({"x": model}).save(Path("w.json"))
    dataset = resolve("trace:w.json:20000")
    ids = np.concatenate([dataset.split(s).ids[:, 0] for s in ("train", "validation", "test")])
    counts = np.sort(np.bincount(ids))[::-1] / 20000

    assert counts[:2] == pytest.approx([0.2, 0.1], abs=0.01)


def test_bags_of_traffic_are_lists(traces):
    trace_fit(str(traces), out=Path("w.json"), features=("items",))
    dataset = resolve("trace:w.json:2000")
    (feature,) = dataset.schema.list_features

    assert feature.name == "items"
    lengths = np.concatenate(
        [np.diff(dataset.split(s).lists.offsets) for s in dataset.splits]  # pyright: ignore[reportOptionalMemberAccess]
    )
    assert np.bincount(lengths, minlength=4) / 2000 == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["profile", "missing.npy"], "missing.npy"),
        (["profile", "traces.npz", "--features", "color"], "users, items"),
        (["fit", "short.txt", "--out", "w.json"], "needs 1,000 or more"),
        (["fit", "traces.npz", "--out", "w.json", "--fbgemm", "f.json"], "--features"),
        (["generate", "production-1999", "--out", "g.npz"], "production-2021"),
        (["generate", "production-2021", "--out", "g.npz", "--accesses", "0"], "at least 1"),
        (["compare", "traces.npz", "short.npz"], "no feature in common"),
        (["profile", "pickle.npy"], "pickle.npy"),
    ],
)
def test_what_cannot_be_is_said(traces, words, problem, capsys):
    import pickle

    Path("short.txt").write_text("1\n2\n3\n")
    Path("pickle.npy").write_bytes(pickle.dumps([1]))
    formats.write(Path("short.npz"), [Trace.of(n, np.arange(3)) for n in ("a", "b")])

    assert main(["trace", *words]) == 1
    assert problem in " ".join(capsys.readouterr().err.split())
    assert not Path("g.npz").exists()


@pytest.mark.parametrize("data", ["trace:", "trace:w.json:0", "trace:nowhere", "trace:w.jso"])
def test_data_of_no_traffic_is_an_error(workdir, data):
    Workload({"x": HeavyHitters(5, 1.0, 1.1, np.empty(0))}).save(Path("w.json"))

    with pytest.raises((ConfigError, InputError)):
        resolve(data)
