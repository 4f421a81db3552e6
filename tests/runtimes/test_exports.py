"""Exports, run by a process that knows nothing of this project; and what is refused."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import trained

from batches import draw, history_schema
from dlrm.batch import Batch, Jagged, bags_of, interleave, spread
from dlrm.errors import ConfigError, IdError, MissingExtraError, RunError
from dlrm.models import MODELS
from dlrm.nn.tables import TablesConfig
from dlrm.runtimes import onnx, runtime
from dlrm.runtimes.plain import exported, input_arrays, input_tensors
from dlrm.runtimes.runtime import Export, Options
from dlrm.runtimes.torch_eager import EagerSession
from dlrm.runtimes.trained import TrainedModel
from dlrm.runtimes.verify import EQUAL, answers, difference, export, probes, verdict
from dlrm.schema import Schema

HISTORY = history_schema(labels=("click", "buy"))
IDS = Schema.one_hot(3, [300, 7, 120, 2], ["user", "C1", "item", "C2"])
RATINGS = replace(
    history_schema(),
    task="regression",
    dense=tuple(replace(f, bins=n) for f, n in zip(HISTORY.dense, (5, 0, 2), strict=True)),
)
CASES = {
    **{name: (lambda name=name: trained(name, HISTORY)) for name in MODELS},
    "a rating, piecewise": lambda: trained("dlrm", RATINGS, number_vectors=True, wide=True),
    "one list alone": lambda: trained("dcn", Schema.one_hot(0, [300], ["user"], kind="bag")),
    "mixed_dim": lambda: _tables("mixed_dim", temperature=1.0),
    "int4": lambda: trained("dlrm", HISTORY, dim=16).quantized("int4"),
}
MORE = {
    "ids": lambda: trained("dlrm", IDS, self_interaction=True),
    "qr": lambda: _tables("qr"),
    "int8": lambda: trained("deepfm", HISTORY, dim=16).quantized("int8"),
    "bf16": lambda: trained("dlrm", IDS, tables=TablesConfig(storage="bf16")),
    "qat": lambda: trained("dlrm", HISTORY, dim=16, tables=TablesConfig(qat="int4")),
}
"""Those that differ in the program alone, which is quick to make."""
HASHED = {
    "hash": lambda: _tables("hash", weighted=True),
    "crosses": lambda: trained(
        "wide_deep", HISTORY, crosses=("user*item", "history*words"), cross_rows=500
    ),
}
FEW = ("dlrm", "xdeepfm", "a rating, piecewise", "one list alone", "int4")
"""Those that are enough where another runtime has taken all of them."""


def _tables(compression, **options) -> TrainedModel:
    tables = TablesConfig(compression=compression, threshold=50, **options)
    return trained("dlrm", HISTORY, tables=tables)


def exporter(name: str) -> Export:
    chosen = runtime.find(name)
    assert isinstance(chosen, Export)
    if chosen.why_missing():
        pytest.skip(chosen.why_missing() or "")
    return chosen


def check(name: str, cases: dict, folder: Path) -> None:
    """Export models, and let another process run them."""
    chosen, jobs = exporter(name), []
    for number, (case, make) in enumerate(cases.items()):
        model = make()
        path = folder / f"{number}{chosen.suffix}"
        written = export(model, chosen, path, Options())
        assert written.max_abs_diff <= EQUAL, case
        metadata = chosen.read_metadata(path)
        assert metadata["dlrm.weights_sha256"] == model.sha256
        assert float(metadata["dlrm.max_abs_diff"]) <= EQUAL
        eager, files = EagerSession(model), []
        for at, batch in enumerate([*probes(model.schema, seed=7), draw(model.schema, 5)]):
            files.append(str(folder / f"{number}-{at}.npz"))
            arrays = {**input_arrays(batch, model.schema), "expected": eager.logits(batch)}
            np.savez(files[-1], allow_pickle=False, **arrays)
        jobs.append({"runtime": name, "path": str(path), "batches": files})
    client = Path(__file__).with_name("client.py")
    done = subprocess.run(
        [sys.executable, str(client)],
        input=json.dumps(jobs),
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    largest = json.loads(done.stdout.splitlines()[-1])
    assert max(largest) < 1e-4, dict(zip(cases, largest, strict=True))


def test_onnx_runtime_runs_every_model(tmp_path):
    check("onnx", CASES | HASHED, tmp_path)


def test_openvino_runs_its_files(tmp_path):
    check("openvino", {name: CASES[name] for name in FEW}, tmp_path)


def test_torch_alone_runs_its_programs(tmp_path):
    check("torch", {name: CASES[name] for name in FEW} | MORE | HASHED, tmp_path)
    with zipfile.ZipFile(tmp_path / "0.pt2") as archive:
        # No pickle among the files, not even of the example inputs.
        for name in archive.namelist():
            if "/sample_inputs/" in name:
                assert not archive.read(name)
            elif name.endswith("_config.json"):
                assert b'"use_pickle": true' not in archive.read(name)


def test_torch_runs_what_is_compiled(tmp_path):
    check("aoti", {"dlrm": CASES["dlrm"]}, tmp_path)


def test_onnx_has_no_loops_and_few_operations():
    exporter("onnx")
    graph = onnx.to_onnx(trained("dlrm", HISTORY)).model.graph
    kinds = [node.op_type for node in graph]
    assert not {"Loop", "If", "Scan", "ConcatFromSequence", "SequenceEmpty"} & set(kinds)
    assert len(kinds) < 80


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_what_exports_make_of_lists_is_what_eager_does(data):
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=8))
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    values = torch.randint(-9, 9, (len(lengths),))
    count = int(offsets[-1])
    expected = [spread(values, offsets, count), bags_of(offsets, count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_exporting", lambda: True)
        actual = [spread(values, offsets, count), bags_of(offsets, count)]
    assert all(map(torch.equal, expected, actual))


@pytest.fixture(scope="module")
def program():
    """A program with lists and eager's session of the same model."""
    model = trained("dlrm", HISTORY)
    return exported(model).module(), EagerSession(model)


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_bags_of_any_lengths(program, data):
    run, eager = program
    samples = data.draw(st.integers(1, 5))
    words, history = (
        data.draw(
            st.lists(
                st.lists(st.integers(0, rows - 1), max_size=4), min_size=samples, max_size=samples
            )
        )
        for rows in (7, 120)
    )
    features = [
        Jagged(
            torch.tensor([i for one in lists for i in one], dtype=torch.int64),
            torch.tensor([0, *np.cumsum([len(one) for one in lists])]),
        )
        for lists in (history, words)
    ]
    batch = replace(draw(HISTORY, samples), lists=interleave(features))
    with torch.no_grad():
        logits = run(*input_tensors(batch, HISTORY)).numpy()
    np.testing.assert_allclose(logits, eager.logits(batch), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory) -> tuple[TrainedModel, Path]:
    exporter("onnx")
    path, model = tmp_path_factory.mktemp("artefact") / "m.onnx", trained("dlrm", HISTORY)
    export(model, exporter("onnx"), path, Options(external=True))
    return model, path


def test_large_tables_lie_beside_the_file(artefact):
    model, path = artefact
    beside = path.with_name("m.onnx.data")
    assert exporter("onnx").files(path) == [path, beside]
    tables = sum(table.num_embeddings for table in HISTORY.tables)
    assert beside.stat().st_size > tables * 4 * 4
    exporter("onnx").check(path, model)


def test_an_artefact_that_was_altered_is_named(artefact, tmp_path):
    model, path = artefact
    chosen = exporter("onnx")
    copies = [tmp_path / file.name for file in chosen.files(path)]
    for file, copy in zip(chosen.files(path), copies, strict=True):
        copy.write_bytes(file.read_bytes())
    chosen.check(copies[0], model)
    content = bytearray(copies[1].read_bytes())
    content[100] ^= 1
    copies[1].write_bytes(content)
    with pytest.raises(RunError, match="was altered"):
        chosen.check(copies[0])
    with pytest.raises(RunError, match="other weights"):
        chosen.check(path, trained("dlrm", HISTORY, top=(7,)))
    with pytest.raises(RunError, match="another schema"):
        chosen.check(path, trained("dlrm", IDS))
    metadata = chosen.read_metadata(path)
    for wrong, message in (
        ({"dlrm.format": "99"}, "format 99, expected format 1"),
        ({}, "no artefact of ours"),
        ({**metadata, "dlrm.schema": '{"features": []}'}, "another schema version"),
    ):
        chosen.write_metadata(copies[0], wrong)
        with pytest.raises(RunError, match=message):
            chosen.open(copies[0], Options())


@pytest.mark.parametrize("name", ["eager", "torch", "aoti", "onnx", "openvino"])
def test_a_file_that_is_not_what_its_name_says(name, tmp_path):
    chosen = runtime.find(name)
    path = tmp_path / f"m{chosen.suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(RunError, match=f"m{chosen.suffix}"):
        chosen.open(path, Options())


def test_a_description_survives_and_one_that_was_altered_does_not(tmp_path):
    model, path = CASES["int4"](), tmp_path / "m.safetensors"
    model.save(path)
    again = TrainedModel.load(path)
    batch = draw(HISTORY, 9)
    assert (again.sha256, again.schema) == (model.sha256, HISTORY)
    np.testing.assert_array_equal(
        EagerSession(again).logits(batch), EagerSession(model).logits(batch)
    )
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="was altered"):
        TrainedModel.load(path)


def test_wrong_inputs_are_named(artefact):
    session = exporter("onnx").open(artefact[1], Options())
    batch = draw(HISTORY, 4)
    with pytest.raises(ConfigError, match=r"dense is float64 \(4, 3\), expected float32 \(4, 3\)"):
        session.logits(replace(batch, dense=batch.dense.double()))
    with pytest.raises(ConfigError, match=r"ids is int64 \(4, 2\), expected .*\(4, 3\)"):
        session.logits(replace(batch, ids=batch.ids[:, :2].long()))
    with pytest.raises(IdError, match="no lists"):
        session.logits(replace(batch, lists=None))
    wrong = batch.ids.clone()
    wrong[2, 1] = 120
    with pytest.raises(IdError, match="item: id 120 is out of range"):
        session.logits(replace(batch, ids=wrong))


def test_what_a_runtime_cannot_express_says_what_to_use_instead(tmp_path):
    model = trained("dlrm", IDS)
    for name in ("aoti", "torch"):
        with pytest.raises(ConfigError, match=r"--external .*onnx or openvino"):
            exporter(name).prepare(model, tmp_path / "m.pt2", Options(external=True))
    for make in HASHED.values():
        with pytest.raises(ConfigError, match=r"32 bits.*onnx"):
            exporter("openvino").prepare(make(), tmp_path / "m.xml", Options())
    with pytest.raises(ConfigError, match=r"ONNX Runtime writes \.onnx"):
        export(model, exporter("onnx"), tmp_path / "m.bin", Options())
    with pytest.raises(ConfigError, match='unknown runtime "tvm"; choose one of: eager'):
        runtime.find("tvm")
    assert not list(tmp_path.iterdir())


def test_a_runtime_without_its_packages_says_how_to_install_them(monkeypatch):
    monkeypatch.setattr(
        runtime, "find_spec", lambda name: None if name == "onnxruntime" else importlib.util
    )
    missing = runtime.find("onnx").why_missing()
    assert missing is not None
    assert "pip install 'opendlrm[onnx]'" in missing
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        runtime.find("onnx").require()


def test_openvino_is_caught_computing_in_bfloat16(tmp_path):
    chosen, model = exporter("openvino"), trained("dlrm", IDS, dim=16, top=(64, 32))
    path = tmp_path / "m.xml"
    export(model, chosen, path, Options())
    batches = probes(IDS)
    expected = answers(EagerSession(model.copied()), batches)
    # What it chooses depends on the CPU; what it does by itself is never declared.
    for options, verdicts in (
        (Options(), {"equal"}),
        (Options(openvino_precision="bf16"), {"equal", "reduced precision, declared", "failed"}),
        (Options(openvino_precision="auto"), {"equal", "failed"}),
    ):
        session = chosen.open(path, options)
        apart = difference(expected, answers(session, batches), IDS.task)
        assert verdict(apart, session) in verdicts
        if session.describe()["precision"] == "bf16":
            assert apart > EQUAL


def test_differences():
    one = [np.zeros((2, 1), np.float32)]
    assert difference(one, one, "classification") == 0
    assert difference(one, [one[0] + np.nan], "classification") == np.inf
    assert difference(one, [one[0][:1]], "classification") == np.inf
    assert difference(one, [one[0] + 0.4], "classification") == pytest.approx(0.0987, abs=1e-4)
    assert difference([one[0] + 10], [one[0] + 11], "regression") == pytest.approx(0.1)
    assert difference([one[0][:0]], [one[0][:0]], "regression") == 0


def test_probes_reach_the_ends():
    batches = probes(HISTORY)
    assert [len(batch) for batch in batches[:5]] == [1, 2, 63, 64, 1024]
    first, last = batches[5:]
    assert isinstance(first, Batch)
    assert not first.ids.any()
    assert first.lists is not None
    assert last.lists is not None
    assert not first.lists.offsets.any()
    assert last.ids[0].tolist() == [299, 119, 6]
    assert set(last.lists.values.tolist()) == {119, 6}
