"""Files that were flipped, cut, swapped or replaced: never a traceback, never another result."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlrm import cli
from dlrm.commands.prepare import prepare
from dlrm.commands.train import train
from dlrm.recipes.own import own

Damage = Callable[[Path, int], None]


def command(folder: Path, what: str) -> list[str]:
    """Return the words of a command about the dataset `data` or the run `run` of a folder."""
    data, run = str(folder / "data"), str(folder / "run")
    table, scores = str(folder / "t.csv"), str(folder / "scores.csv")
    return {
        "verify": ["data", "describe", data, "--verify"],
        "train": ["train", data, "--run", str(folder / "new"), "--epochs", "1", "--no-baseline"],
        "eval": ["eval", run, "--data", data, "--no-intervals"],
        "predict": ["predict", run, table, "--out", scores],
        "resume": ["train", "--run", run, "--resume"],
    }[what]


def answer(folder: Path, what: str) -> tuple[int, Any]:
    """Run a command in this process; return its status, and what it answers when that is 0."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main([*command(folder, what), "--json"])
    shutil.rmtree(folder / "new", ignore_errors=True)
    if status:
        return status, None
    scores = (folder / "scores.csv").read_text() if what == "predict" else ""
    values = json.loads(out.getvalue().splitlines()[-1])
    measured = ("metrics", "test", "validation", "features", "splits", "mean_scores")
    return 0, (scores, {name: values[name] for name in measured if name in values})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose two categories have the same values, and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("damage")
    rows = [
        f"{i % 7}.{i % 3},{'abcd'[i % 4]},{'badc'[(i // 3) % 4]},{int(i * 7 % 5 < 2)}"
        for i in range(150)
    ]
    (folder / "t.csv").write_text("\n".join(["price,colour,shape,y", *rows]) + "\n")
    prepare("table", [folder / "t.csv"], out=folder / "data", label=("y",))
    train(replace(own(), data=str(folder / "data"), epochs=1, baseline=False), run=folder / "run")
    return folder


@pytest.fixture(scope="module")
def right(whole: Path) -> dict[str, tuple[int, Any]]:
    return {what: answer(whole, what) for what in ("verify", "eval", "predict")}


def flip(path: Path, number: int) -> None:
    content = bytearray(path.read_bytes())
    content[number % len(content)] ^= 1 << number % 8
    path.write_bytes(content)


def cut(path: Path, number: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: number % len(content)])


def swap(path: Path, number: int) -> None:
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    if others:
        other = others[number % len(others)]
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)


TEXTS = [
    b"", b"7", b"[]", b"{}", b"null", b'"x"', b"NaN", b'{"a": 1, "a": 1}', b"\xff\xfe",
    b"[" * 100_000, b'{"a":' * 50_000, b'{"format": "dlrm-dataset", "version": 99}',
]  # fmt: skip


def replace_text(path: Path, number: int) -> None:
    path.write_bytes(TEXTS[number % len(TEXTS)])


def loop(path: Path, number: int) -> None:
    path.unlink()
    path.symlink_to(path.name)


def folder_instead(path: Path, number: int) -> None:
    path.unlink()
    path.mkdir()


def missing(path: Path, number: int) -> None:
    path.unlink()


DAMAGES: list[Damage] = [flip, cut, swap, replace_text, loop, folder_instead, missing]


def damaged(whole: Path, copy: Path, part: str, place: int, damage: Damage, number: int) -> Path:
    """Copy dataset and run, and damage one file of `part`; return it."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    files = sorted(p for p in (copy / part).rglob("*") if p.is_file() and p.suffix != ".html")
    path = files[place % len(files)]
    if path.stat().st_size:
        damage(path, number)
    return path


@given(place=st.integers(0, 999), damage=st.sampled_from(DAMAGES), number=st.integers(0, 1 << 20))
@example(place=8, damage=flip, number=3)
@settings(max_examples=60, deadline=None)
def test_a_damaged_dataset(whole, right, place, damage, number):
    copy = whole.parent / "copy-data"
    path = damaged(whole, copy, "data", place, damage, number)
    for what in ("verify", "eval"):
        status, values = answer(copy, what)
        assert (status, values) == right[what] or status == 1, (what, path, damage.__name__)
    if answer(copy, "verify")[0]:
        assert answer(copy, "train")[0] == 1, (path, damage.__name__)


@given(place=st.integers(0, 999), damage=st.sampled_from(DAMAGES), number=st.integers(0, 1 << 20))
@settings(max_examples=60, deadline=None)
def test_a_damaged_run(whole, right, place, damage, number):
    copy = whole.parent / "copy-run"
    path = damaged(whole, copy, "run", place, damage, number)
    for what in ("eval", "predict"):
        status, values = answer(copy, what)
        assert (status, values) == right[what] or status == 1, (what, path, damage.__name__)


@given(place=st.integers(0, 999), damage=st.sampled_from(DAMAGES), number=st.integers(0, 1 << 20))
@settings(max_examples=10, deadline=None)
def test_a_damaged_run_that_is_resumed(whole, place, damage, number):
    copy = whole.parent / "copy-resumed"
    damaged(whole, copy, "run", place, damage, number)
    assert answer(copy, "resume")[0] in (0, 1)


def test_swapped_vocabularies_are_noticed(whole, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    one, other = copy / "data/vocabulary/0000.parquet", copy / "data/vocabulary/0001.parquet"
    one.rename(copy / "x")
    other.rename(one)
    (copy / "x").rename(other)
    assert answer(copy, "verify")[0] == answer(copy, "train")[0] == 1
