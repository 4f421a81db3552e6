"""Files of traces: what is read is what was written, and nothing else is read."""

import gzip
import pickle

import numpy as np
import pytest
import torch

from dlrm.errors import InputError
from dlrm.traces import formats
from dlrm.traces.trace import Trace


@pytest.fixture
def bags():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, 50)
    return Trace("items", rng.integers(0, 90, lengths.sum()), lengths)


def lengths_of(trace: Trace) -> list[int]:
    assert trace.lengths is not None
    return trace.lengths.tolist()


@pytest.mark.parametrize("name", ["a.npz", "a.txt"])
def test_bags_come_back(tmp_path, bags, name):
    formats.write(tmp_path / name, [bags])
    (back,) = formats.read(tmp_path / name)

    assert back.ids.tolist() == bags.ids.tolist()
    assert back.lengths is not None
    assert back.lengths.tolist() == lengths_of(bags)


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_features_come_back(tmp_path, name):
    traces = [Trace(f"table_{t}", np.arange(5) * (t + 1)) for t in range(3)]
    formats.write(tmp_path / name, traces)

    back = formats.read(tmp_path / name)
    assert [trace.ids.tolist() for trace in back] == [trace.ids.tolist() for trace in traces]


def test_a_single_line_is_a_stream_as_in_the_originals_traces(tmp_path):
    (tmp_path / "trace.log").write_text("1, 2, 3, 4, 5, 3, 4, 1, 1, 6, 3\n\n")
    (trace,) = formats.read(tmp_path / "trace.log")

    assert trace.ids.tolist() == [1, 2, 3, 4, 5, 3, 4, 1, 1, 6, 3]
    assert trace.lengths is None


@pytest.mark.parametrize("packed", [False, True])
def test_published_tensors_are_read_without_their_pickle(tmp_path, packed, monkeypatch):
    lengths = torch.randint(0, 4, (3, 7))
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.reshape(-1).cumsum(0)])
    indices = torch.randint(0, 100, (int(offsets[-1]),), dtype=torch.int32)
    path = tmp_path / "published.pt"
    torch.save((indices, offsets, lengths), path)
    if packed:
        path = tmp_path / "published.pt.gz"
        path.write_bytes(gzip.compress((tmp_path / "published.pt").read_bytes()))
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(pickle, "loads", None)

    traces = formats.read(path)

    assert np.concatenate([t.ids for t in traces]).tolist() == indices.tolist()
    assert [lengths_of(trace) for trace in traces] == lengths.tolist()


@pytest.mark.parametrize(
    ("offsets", "problem"),
    [([0, 3, 2, 4], "not decrease"), ([0, 2, 9], "past the"), ([1, 2, 4], "begin with 0")],
)
def test_offsets_must_fit(tmp_path, offsets, problem):
    torch.save((torch.arange(4), torch.tensor(offsets)), tmp_path / "a.pt")

    with pytest.raises(InputError, match=problem):
        formats.read(tmp_path / "a.pt")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def bad_files():
    yield "pickle.txt", pickle.dumps([1]), "a pickle"
    yield "pickle.npy", pickle.dumps(Bomb()), "pickle"
    yield "pickle.pt", pickle.dumps(Bomb()), "pickle"
    yield "bomb.pt", Bomb(), "pickle"
    yield "module.pt", torch.nn.Linear(1, 1), "pickle"
    yield "floats.pt", (torch.rand(3), torch.rand(3)), "expected integers"
    yield "empty.txt", b"", "is empty"
    yield "negative.txt", b"1\n-2\n", "line 2"
    yield "words.txt", b"1 2\nx\n", "line 2"
    yield "cut.npy", b"\x93NUMPY\x01", "damaged"
    yield "cut.npz", b"PK\x03\x04", "damaged"
    yield "cut.pt.gz", gzip.compress(b"PK"), "damaged"


@pytest.mark.parametrize(
    ("name", "content", "problem"), list(bad_files()), ids=[name for name, *_ in bad_files()]
)
def test_anything_else_is_an_error_that_names_the_file(tmp_path, name, content, problem):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)

    with pytest.raises(InputError, match=problem) as caught:
        formats.read(path)
    assert str(path) in str(caught.value)


def test_a_truncated_tensor_is_an_error(tmp_path):
    import zipfile

    path = tmp_path / "a.pt"
    torch.save((torch.arange(100), torch.tensor([0, 100])), path)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as cut:
        for name in whole.namelist():
            content = whole.read(name)
            cut.writestr(name, content[:80] if name.endswith("data/0") else content)

    with pytest.raises(InputError, match="cut off"):
        formats.read(tmp_path / "b.pt")


@pytest.mark.parametrize(
    ("ids", "lengths", "problem"),
    [
        ([], None, "empty"),
        ([1.5], None, "integers"),
        ([[1]], None, "row of integers"),
        ([3, -1], None, "row 2, column x"),
        ([1, 2, 3], [1, 1], "sum to 2"),
    ],
)
def test_arrays_are_looked_at(ids, lengths, problem):
    with pytest.raises(InputError, match=problem):
        Trace.of("x", np.array(ids), None if lengths is None else np.array(lengths))
