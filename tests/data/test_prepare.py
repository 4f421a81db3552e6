import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlrm.data import fitting, target
from dlrm.data.arrays import ArrayWriter
from dlrm.data.features.columns import Columns, log_columns
from dlrm.data.features.features import Features
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources import parts
from dlrm.data.sources.criteo import CriteoSource
from dlrm.data.split import SPLITS, pieces, plan
from dlrm.data.store import Dataset, verify
from dlrm.errors import ConfigError, DatasetError, InputError

from .logs import log, reference, rows, source, write


def check(dataset: Dataset, log, *, split: str, fractions=(0.5, 0.25, 0.25), seed=0, **options):
    """Compare a dataset with what plain Python makes of the log."""
    expected = reference(log, **options)
    assert dataset.schema.num_embeddings == expected.rows
    places = plan(split, len(log), fractions=fractions, seed=seed)
    where = dict(pieces(places))
    for name in SPLITS:
        found, chosen = dataset.split(name), where.get(name, slice(0, 0))
        np.testing.assert_array_equal(found.labels[:, 0], expected.labels[chosen])
        np.testing.assert_array_equal(found.ids, expected.ids[chosen])
        np.testing.assert_array_equal(found.dense, expected.dense[chosen])
        assert found.dense.flags.c_contiguous
        assert (found.dense.dtype, found.ids.dtype) == (np.float32, np.int32)
        assert dataset.manifest["splits"][name]["positives"] == {"label": found.labels.sum()}
    verify(dataset)


def files(folder: Path) -> list[str]:
    """Return everything under a folder, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    log=rows(),
    chunk_bytes=st.integers(1, 3000),
    block_rows=st.integers(1, 30),
    split=st.sampled_from(["kaggle", "chronological", "random"]),
    ids=st.sampled_from(["appearance", "frequency"]),
    min_count=st.integers(1, 4),
    max_rows_per_table=st.sampled_from([None, None, 1, 3, 1000]),
)
def test_equals_plain_python_for_any_chunks(
    tmp_path_factory, log, chunk_bytes, block_rows, split, ids, min_count, max_rows_per_table
):
    folder = tmp_path_factory.mktemp("any")
    options = {"ids": ids, "min_count": min_count, "max_rows_per_table": max_rows_per_table}
    fractions = (0.5, 0.25, 0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_ROWS", block_rows)
        raw = source(folder / "raw", log, chunk_bytes)
        config = PrepareConfig(split=split, fractions=fractions, seed=3, **options)
        made = prepare(raw, folder / "out", config)
    check(made.dataset, log, split=split, fractions=fractions, seed=3, **options)
    frame = pl.concat(raw.read())
    encoded = Features.load(folder / "out").encode(frame)
    expected = reference(log, **options)
    np.testing.assert_array_equal(encoded.ids, expected.ids)
    np.testing.assert_array_equal(encoded.dense, expected.dense)
    assert files(folder)[0] == "out"  # nothing hidden is left
    shutil.rmtree(folder)


def test_line_ends_compression_and_files_do_not_matter(tmp_path):
    whole = log(400)
    sources = {
        "plain": [write(tmp_path / "plain.txt", whole)],
        "crlf": [write(tmp_path / "crlf.txt", whole, ends="\r\n", last=False)],
        "gz": [write(tmp_path / "log.gz", whole)],
        "days": [
            write(tmp_path / f"day_{day}{suffix}", whole[start:stop])
            for day, (start, stop, suffix) in enumerate(
                [(0, 1, ""), (1, 250, ".gz"), (250, 400, "")]
            )
        ],
    }
    for name, paths in sources.items():
        made = prepare(CriteoSource(paths), tmp_path / name)
        check(made.dataset, whole, split="kaggle")


def test_days_hold_the_last_file_out(tmp_path):
    whole = log(100)
    days = [write(tmp_path / "day_0", whole[:70]), write(tmp_path / "day_1", whole[70:])]
    dataset = prepare(CriteoSource(days), tmp_path / "out", PrepareConfig(split="days")).dataset
    assert [len(dataset.split(name)) for name in SPLITS] == [70, 15, 15]
    np.testing.assert_array_equal(
        dataset.split("test").labels[:, 0], reference(whole).labels[70:85]
    )
    with pytest.raises(ConfigError, match="two or more, but there is 1"):
        prepare(CriteoSource(days[0]), tmp_path / "other", PrepareConfig(split="days"))
    assert not (tmp_path / "other").exists()


def test_counts_as_fractions_leave_the_rest_out(tmp_path):
    dataset = prepare(
        source(tmp_path / "raw", log(50)),
        tmp_path / "out",
        PrepareConfig(split="chronological", fractions=(30, 10, 0)),
    ).dataset
    assert [len(dataset.split(name)) for name in SPLITS] == [30, 10, 0]
    assert dataset.manifest["unused_rows"] == 10
    with pytest.raises(ConfigError, match="the log has 50"):
        prepare(
            source(tmp_path / "raw", log(50)),
            tmp_path / "more",
            PrepareConfig(split="chronological", fractions=(50, 1, 0)),
        )
    assert not files(tmp_path / "more")


class Words:
    """A source of another kind: texts, floating-point numbers, a known truth."""

    name = "words"

    def __init__(self, rows: int):
        rng = np.random.default_rng(1)
        cities = rng.choice(["Rome", "Bern", "", "Zürich"], rows)
        self.frame = pl.DataFrame(
            {
                "bought": pl.Series(rng.integers(0, 2, rows), dtype=pl.UInt8),
                "price": pl.Series([None, float("nan"), -2.0, 0.5] * (rows // 4)),
                "city": pl.Series([city or None for city in cities], dtype=pl.String),
                "shop": pl.Series(rng.integers(-5, 5, rows), dtype=pl.Int64),
                "truth": pl.Series(rng.random(rows), dtype=pl.Float32),
            }
        )

    def schema(self) -> Columns:
        return log_columns("bought", ["price"], ["city", "shop"])

    def fingerprint(self):
        return {"source": self.name, "rows": self.frame.height}

    def rows(self):
        return self.frame.height

    def read(self):
        yield from self.frame.iter_slices(30)


def test_texts_truth_and_other_numbers(tmp_path):
    words = Words(100)
    dataset = prepare(
        words, tmp_path / "a", PrepareConfig(split="chronological", fractions=(1, 0, 0))
    ).dataset
    train = dataset.split("train")
    np.testing.assert_array_equal(train.truth, words.frame["truth"].to_numpy())
    expected = np.array([0, 0, 0, np.log(1.5)] * 25, np.float32)[:, None]
    np.testing.assert_array_equal(train.dense, expected)
    known: dict = {}
    cities = [known.setdefault(city, len(known)) for city in words.frame["city"]]
    assert train.ids[:, 0].tolist() == cities
    assert dataset.schema.num_embeddings[0] == 5
    assert dataset.split("test").truth is not None
    unseen = words.frame.with_columns(pl.lit("Oslo").alias("city"), pl.lit(77).alias("shop"))
    assert (Features.load(tmp_path / "a").encode(unseen).ids == [4, 10]).all()
    few = prepare(words, tmp_path / "b", PrepareConfig(max_rows_per_table=2)).dataset
    assert all(rows <= 3 for rows in few.schema.num_embeddings)


def test_a_finished_dataset_is_found_again(tmp_path):
    whole = log(60)
    raw = source(tmp_path / "raw", whole)
    assert not prepare(raw, tmp_path / "out").reused
    before = (tmp_path / "out" / "manifest.json").stat()
    assert prepare(CriteoSource(tmp_path / "raw"), tmp_path / "out").reused
    assert (tmp_path / "out" / "manifest.json").stat() == before
    # A seed has no meaning for the kaggle split.
    assert prepare(raw, tmp_path / "out", PrepareConfig(seed=7)).reused
    with pytest.raises(DatasetError, match=r"min_count is 1, asked for is 2.*--force"):
        prepare(raw, tmp_path / "out", PrepareConfig(min_count=2))
    changed = source(tmp_path / "raw2", log(60, seed=1))
    with pytest.raises(DatasetError, match="another log"):
        prepare(changed, tmp_path / "out")
    check(Dataset.open(tmp_path / "out"), whole, split="kaggle")
    made = prepare(changed, tmp_path / "out", PrepareConfig(min_count=2), force=True)
    check(made.dataset, log(60, seed=1), split="kaggle", min_count=2)
    assert files(tmp_path)[0] == "out"


def test_nothing_but_a_dataset_is_ever_replaced(tmp_path):
    raw, out = source(tmp_path / "raw", log(20)), tmp_path / "out"
    out.mkdir()
    prepare(raw, out)  # an empty folder is nothing
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"notes\.txt, which is not the dataset's"):
        prepare(raw, out, PrepareConfig(min_count=2), force=True)
    assert Dataset.open(out).manifest["options"]["min_count"] == 1
    for other, force in ((tmp_path / "raw", True), (tmp_path, True), (tmp_path, False)):
        before = files(tmp_path)
        with pytest.raises(DatasetError, match="is not a prepared dataset; it is left alone"):
            prepare(raw, other, force=force)
        assert files(tmp_path) == before
    web = tmp_path / "web"
    web.mkdir()
    (web / "manifest.json").write_text('{"name": "my app"}')
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        prepare(raw, web, force=True)
    assert files(web) == ["manifest.json"]
    partial = tmp_path / ".new.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("mine")
    with pytest.raises(DatasetError, match=r"thesis\.tex is in the way"):
        prepare(raw, tmp_path / "new")
    assert (partial / "thesis.tex").exists()


def test_a_damaged_dataset_can_be_replaced(tmp_path):
    raw, out = source(tmp_path / "raw", log(20)), tmp_path / "out"
    prepare(raw, out)
    (out / "manifest.json").write_text("{half")
    with pytest.raises(DatasetError, match=r"not JSON.*--force"):
        prepare(raw, out)
    check(prepare(raw, out, force=True).dataset, log(20), split="kaggle")


def test_what_appears_meanwhile_is_left_alone(tmp_path, monkeypatch):
    raw, out = source(tmp_path / "raw", log(20)), tmp_path / "out"
    inputs = fitting.Fitted.inputs

    def meanwhile(fitted):
        out.mkdir()
        (out / "train").write_text("mine")
        return inputs(fitted)

    monkeypatch.setattr(fitting.Fitted, "inputs", meanwhile)
    with pytest.raises(DatasetError, match="meanwhile"):
        prepare(raw, out)
    assert files(tmp_path) == ["out", "out/train", "raw"]


def test_a_bad_row_leaves_nothing(tmp_path):
    bad = [*log(30), ("2", *log(1)[0][1:])]
    raw = write(tmp_path / "raw", bad)
    with pytest.raises(InputError, match="line 31, column label"):
        prepare(CriteoSource(raw, chunk_bytes=1000), tmp_path / "deep" / "out")
    assert files(tmp_path) == ["deep", "raw"]
    made = prepare(CriteoSource(raw, bad_rows="skip"), tmp_path / "out")
    check(made.dataset, log(30), split="kaggle")
    assert made.dataset.manifest["bad_rows"]["total"] == 1
    assert "line 31" in made.dataset.manifest["bad_rows"]["first"][0]
    assert made.dataset.summary()["bad_rows"] == 1
    worst = write(tmp_path / "worst", [("2", *log(1)[0][1:])] * 3)
    with pytest.raises(DatasetError, match=r"all 3 were bad, the first is .*line 1"):
        prepare(CriteoSource(worst, bad_rows="skip"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_manifest_counts_what_is_missing_and_rare(tmp_path):
    whole = log(200)
    manifest = prepare(
        source(tmp_path / "raw", whole), tmp_path / "out", PrepareConfig(min_count=3)
    ).dataset
    features = {each["name"]: each for each in manifest.manifest["features"]}
    assert features["I2"]["missing_rate"] == sum(not row[2] for row in whole) / 200
    assert features["C4"]["missing_rate"] == sum(not row[17] for row in whole) / 200
    ids = reference(whole, min_count=3)
    assert features["C4"]["rare"] == (ids.ids[:, 3] == ids.rows[3] - 1).sum()
    assert [each["num_embeddings"] for each in features.values()] == [None] * 13 + list(ids.rows)


def test_a_small_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    raw = source(tmp_path / "raw", log(100))
    monkeypatch.setattr(target, "free_bytes", lambda out: 1000)
    with pytest.raises(DatasetError, match=r"needs about .* but 1\.0 kB are free"):
        prepare(raw, tmp_path / "out")
    assert files(tmp_path) == ["raw"]


def test_the_estimate_is_about_what_is_used(tmp_path, monkeypatch):
    raw, used = source(tmp_path / "raw", log(3000), 20_000), [0]

    def watch(owner, name):
        call = getattr(owner, name)

        def watched(*arguments):
            done = call(*arguments)
            used.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
            return done

        monkeypatch.setattr(owner, name, watched)

    folder = tmp_path / ".out.partial"
    watch(fitting, "raw_table")
    watch(fitting.Fitted, "inputs")
    prepare(raw, tmp_path / "out")
    disk = target.disk_bytes(raw.rows(), raw.schema())
    # The first megabyte of the estimate is for what does not grow with the rows.
    assert max(used) / 1.5 < disk - (1 << 20) < max(used) * 2


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "is full"), (errno.EACCES, "cannot be written")]
)
@pytest.mark.parametrize(
    "place", [(ArrayWriter, "write"), (ArrayWriter, "close"), (pl.DataFrame, "write_ipc")]
)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, code, said, place):
    def refuse(*_, **__):
        if place[0] is pl.DataFrame:  # says it in words, without a number
            raise OSError(f"{os.strerror(code)} (os error {code})")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*place, refuse)
    with pytest.raises(DatasetError, match=said):
        prepare(source(tmp_path / "raw", log(50)), tmp_path / "out")
    assert files(tmp_path) == ["raw"]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ArrayWriter, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(source(tmp_path / "raw", log(50)), tmp_path / "out")
    assert files(tmp_path) == ["raw"]


def test_two_at_once_are_told(tmp_path):
    raw = source(tmp_path / "raw", log(20))
    with suppress(ZeroDivisionError), target.staged(tmp_path / "out", target.ENTRIES) as folder:
        (folder / "spill").mkdir()
        with pytest.raises(DatasetError, match="another process is preparing"):
            prepare(raw, tmp_path / "out")
        assert (folder / "spill").exists()
        raise ZeroDivisionError
    assert files(tmp_path) == ["raw"]
    assert not prepare(raw, tmp_path / "out").reused


SLOW = """
import sys
from pathlib import Path
from dlrm.data.sources.criteo import CriteoSource
from dlrm.data import prepare as module
from dlrm.data.sources import parts
parts.PART_ROWS = 1
print("go", flush=True)
while True:
    module.prepare(CriteoSource(sys.argv[1], chunk_bytes=2000), sys.argv[2])
    print("done", flush=True)
    break
"""


def test_killed_at_any_moment_and_run_again(tmp_path):
    whole = log(1500)
    raw, out = write(tmp_path / "raw", whole), tmp_path / "out"
    rng, unfinished, wait_s = random.Random(5), 0, 0.6
    for _ in range(7):
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(raw), str(out)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process, process.stdout as lines:
            assert lines.readline() == "go\n"
            time.sleep(rng.random() * wait_s)
            process.send_signal(signal.SIGKILL)
        if not out.exists():
            unfinished += 1
            continue
        wait_s /= 2  # it was done already: aim earlier
        check(Dataset.open(out), whole, split="kaggle")
    if unfinished:
        # The last kills may have left a folder, which must not hinder.
        shutil.rmtree(out, ignore_errors=True)
    check(prepare(CriteoSource(raw), out).dataset, whole, split="kaggle")
    assert files(tmp_path)[0] == "out"


@pytest.mark.parametrize(
    "stage",
    ["fitting.raw_table", "prepare.fit_rows", "prepare._write_splits", "prepare.write_sealed"],
)
def test_killed_in_every_stage_and_run_again(tmp_path, stage):
    whole = log(40)
    raw, out = write(tmp_path / "raw", whole), tmp_path / "out"
    code = (
        "import os, signal, sys\n"
        "from dlrm.data import fitting, prepare\n"
        "from dlrm.data.sources.criteo import CriteoSource\n"
        f"stage = {stage}\n"
        "def die(*a, **b):\n"
        "    stage(*a, **b)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{stage} = die\n"
        "prepare.prepare(CriteoSource(sys.argv[1]), sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(raw), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert (tmp_path / ".out.partial").exists()
    check(prepare(CriteoSource(raw), out).dataset, whole, split="kaggle")
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "weekly"}, "kaggle, days, chronological, random"),
        ({"ids": "alphabet"}, "appearance, frequency"),
        ({"min_count": 0}, "min_count is 0"),
        ({"max_rows_per_table": 0}, "max_rows_per_table is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"fractions": (0.5, 0.1, 0.1)}, "0.5/0.1/0.1"),
    ],
)
def test_settings_without_meaning(options, said):
    with pytest.raises(ConfigError, match=said):
        PrepareConfig(**options)


def test_the_manifest_is_json_of_the_documented_form(tmp_path):
    dataset = prepare(source(tmp_path / "raw", log(20)), tmp_path / "out").dataset
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest.pop("sha256")
    assert manifest == dataset.manifest
    assert (manifest["format"], manifest["version"]) == ("dlrm-dataset", 4)
    ids = manifest["splits"]["train"]["arrays"]["ids"]
    assert (ids["dtype"], ids["shape"], ids["bytes"]) == ("<i4", [18, 26], 18 * 26 * 4)
    assert files(tmp_path / "out")[:2] == ["features.json", "manifest.json"]
