from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from dlrm.compat.random_data import Distribution, distribution_file, synthetic
from dlrm.errors import InputError

from .session import GOLDEN


@st.composite
def distributions(draw: st.DrawFn) -> Distribution:
    ids = draw(st.lists(st.integers(0, 50), min_size=2, max_size=8, unique=True))
    distances = sorted(draw(st.sets(st.integers(1, len(ids)), min_size=1)) | {0})
    shares = draw(st.lists(st.integers(1, 9), min_size=len(distances), max_size=len(distances)))
    cumulative = [sum(shares[: i + 1]) / sum(shares) for i in range(len(shares))]
    return Distribution(tuple(ids), tuple(distances), tuple(cumulative))


@settings(deadline=None)
@given(distributions(), st.integers(1, 30), st.booleans(), st.integers(0, 2**32 - 1))
def test_stack_distances_of_what_is_drawn(d: Distribution, size: int, padding: bool, seed: int):
    bag = d.draw(RandomState(seed), size, padding=padding)
    assert len(bag) == size
    assert set(bag) <= set(d.ids)
    # Ids come in the order of the file while they are new, and each repetition lies at one of the
    # distances of the file.
    new, stack = 0, []
    for value in bag:
        if value in stack:
            distance = len(stack) - stack.index(value)
            assert distance in d.distances or len(stack) == len(d.ids)
            stack.remove(value)
        else:
            assert value == d.ids[new]
            new += 1
        stack.append(value)
    if padding:
        assert new <= d.distances[-1]


def test_padding_ends_new_ids():
    d = Distribution((1, 2, 3, 4, 5, 6), (0, 1, 2), (0.9, 0.95, 1.0))
    assert set(d.draw(RandomState(1), 200, padding=True)) == {1, 2}
    assert set(d.draw(RandomState(1), 200, padding=False)) == {1, 2, 3, 4, 5, 6}


def test_files(tmp_path: Path):
    (tmp_path / "dist_0.log").write_text((GOLDEN / "input" / "dist_emb_0.log").read_text())
    draw = synthetic(RandomState(1), f"{tmp_path}/dist_j.log", 1, padding=False)
    assert set(draw(0, 7, 50).tolist()) <= {1, 2, 3, 4, 5, 6}


def test_ids_beyond_the_table_are_wrapped_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "dist_0.log"
    file.write_text("5, 7\n0, 1\n0.5, 1.0\n")
    ids = synthetic(RandomState(1), str(tmp_path / "dist_j.log"), 1, padding=False)(0, 4, 20)
    assert ids.tolist() == [1, 3]
    assert "distribution is inconsistent with embedding table size" in capsys.readouterr().out


def test_only_the_last_j_of_the_name_stands_for_the_table():
    assert distribution_file("jane/projects/dist_emb_j.log", 12) == Path(
        "jane/projects/dist_emb_12.log"
    )
    assert distribution_file("same/for/all.txt", 3) == Path("same/for/all.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1, 2\n0, 1\n", "2 lines, expected 3"),
        ("1, x\n0, 1\n0.5, 1\n", "line 1: could not convert"),
        ("1, 2\n1, 0\n0.5, 1\n", "line 2: expected ascending stack distances from 0 to 2"),
        ("1, 2\n0, 3\n0.5, 1\n", "line 2: expected ascending"),
        ("1, 2\n0, 1\n1\n", "line 3: 1 probabilities for 2 stack distances"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, said: str):
    file = tmp_path / "d.log"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        Distribution.read(file)
    assert str(file) in str(caught.value)


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"dist_1\.log: cannot be read .*--data-trace-file"):
        Distribution.read(tmp_path / "dist_1.log")
