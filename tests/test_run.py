import json

import pytest

from dlrm.errors import RunError
from dlrm.run import Run
from dlrm.schema import Schema

SCHEMA = Schema.one_hot(1, [9])


@pytest.fixture
def run(tmp_path):
    return Run.create(
        tmp_path / "run",
        recipe="demo",
        config={"epochs": 1},
        schema=SCHEMA,
        environment={"cores": 2},
        dataset={"path": "x"},
    )


def test_what_was_written_is_read_again(run):
    again = Run.open(run.path)
    assert again.recipe == "demo"
    assert again.config == {"epochs": 1}
    assert again.schema == SCHEMA
    assert again.environment == {"cores": 2}
    assert again.dataset == {"path": "x"}
    assert again.evaluation("test") is None
    assert again.metrics() == []


def test_a_run_is_not_overwritten(run):
    # Where nothing was trained, nothing is lost.
    Run.check_new(run.path)
    run.log("train", step=1)
    with pytest.raises(RunError, match=r"exists already.*--resume"):
        Run.check_new(run.path)


def test_only_run_directories_open(tmp_path):
    with pytest.raises(RunError, match="no such run directory"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(RunError, match="not a run directory"):
        Run.open(tmp_path)


def test_rewinding_forgets_later_steps(run):
    for step in range(1, 6):
        run.log("train", step=step, loss=0.1 * step)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "tr')
    run.rewind(3)
    run.log("resumed", step=3)
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 3]


def test_a_damaged_line_is_named(run):
    (run.path / "metrics.jsonl").write_text('{"event": "train"}\nnonsense\n{"event": "train"}\n')
    with pytest.raises(RunError, match=r"metrics.jsonl, line 2"):
        run.metrics()


def test_a_damaged_file_is_named(run):
    (run.path / "schema.json").write_text("{")
    with pytest.raises(RunError, match=r"schema.json: not JSON"):
        _ = run.schema


def test_not_a_number_is_never_written(run):
    with pytest.raises(ValueError, match="Out of range"):
        run.log("train", loss=float("nan"))


def test_schemas_say_how_they_differ():
    other = Schema.from_dict(json.loads(json.dumps(SCHEMA.to_dict())))
    assert SCHEMA.difference(other) is None
    more = Schema.one_hot(1, [10])
    assert "num_embeddings=9" in str(SCHEMA.difference(more))
    assert "1 dense features against 0" in str(SCHEMA.difference(Schema.one_hot(0, [])))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{}", 'it has no "recipe"'),
        ("config.json", b"[]", "expected a JSON object"),
        ("schema.json", b'{"dense": []}', "not a schema"),
        ("schema.json", b'{"dense": [{"nme": 1}], "tables": []}', "not a schema"),
        # As dlrm wrote it before tables could be shared.
        ("schema.json", b'{"dense": [], "categorical": []}', "not a schema.*train it again"),
        ("metrics.jsonl", b"\xff\xfe\n", "line 1: not JSON"),
    ],
)
def test_files_without_their_content_are_named(run, name, content, message):
    (run.path / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name}(: |, ){message}"):
        _ = run.config, run.schema, run.metrics()
