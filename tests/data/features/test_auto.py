import numpy as np
import polars as pl

from dlrm.data.features.auto import choose
from dlrm.data.features.columns import Columns
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.features import Features
from dlrm.data.features.fit import FittingRows
from dlrm.data.features.infer import infer
from dlrm.data.sources.frame import FrameSource

from .tables import arrays, prepare


def planted(rows: int, seed: int, kind: str) -> pl.DataFrame:
    """Return four categories, two numbers, and a label that depends on what `kind` says."""
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.integers(0, 12, (4, rows))
    x, u = rng.normal(size=(2, rows))
    logit = 0.5 * x + np.where(d > 6, 0.5, -0.5)
    if kind == "cross":
        logit = logit + 1.5 * rng.normal(size=(12, 12))[a, b]
    label = rng.random(rows) < 1 / (1 + np.exp(-logit))
    texts = {
        name: [f"{name}{k}" for k in ids] for name, ids in zip("abcd", (a, b, c, d), strict=True)
    }
    return pl.DataFrame({**texts, "x": x, "u": u, "label": label.astype(int)})


def chosen(frame: pl.DataFrame, folder) -> Columns:
    folder.mkdir(exist_ok=True)
    raw = FrameSource(frame).table(folder, lambda _: None)
    every = np.arange(frame.height)
    clicks = frame["label"].cast(pl.UInt8).to_numpy()
    rows = FittingRows(table=raw, train=every, labels=clicks, good=np.ones(frame.height, bool))
    return choose(rows, infer(raw, ["label"]))


def test_a_planted_cross_is_found(tmp_path):
    schema = chosen(planted(8000, 0, "cross"), tmp_path / "raw")
    assert [set(cross.columns) for cross in schema.crosses] == [{"a", "b"}]
    assert schema.crosses[0].why.startswith("lowers log loss by 0.")
    assert "on held-out training rows" in schema.crosses[0].why


def test_where_there_is_nothing_nothing_is_found(tmp_path):
    found = 0
    for seed in range(6):
        schema = chosen(planted(2000, seed, "none"), tmp_path / f"{seed}")
        found += len(schema.crosses)
    assert found <= 1


def test_only_training_rows_are_looked_at(tmp_path):
    frame = planted(4000, 2, "cross")
    half = frame.height // 2
    rng = np.random.default_rng(0)
    other = frame[half:].with_columns(
        label=pl.Series(rng.integers(0, 2, half)), a=pl.lit("new"), u=pl.lit(1e6)
    )
    settings = {
        "split": "chronological",
        "fractions": (half, half, 0),
        "features": FeaturesConfig(select="auto"),
    }
    one = prepare(frame, tmp_path / "one", **settings)
    two = prepare(pl.concat([frame[:half], other]), tmp_path / "two", **settings)
    encoders = [Features.load(made.path) for made in (one, two)]
    assert all(isinstance(encoder, Features) for encoder in encoders)
    assert encoders[0].columns == encoders[1].columns  # type: ignore[union-attr]
    assert encoders[0].columns.crosses  # type: ignore[union-attr]
    mine, theirs = arrays(one), arrays(two)
    for array in ("dense", "ids"):
        np.testing.assert_array_equal(mine[f"train {array}"], theirs[f"train {array}"])
