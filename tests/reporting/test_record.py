import json
from pathlib import Path

import pytest

from dlrm.errors import RunError
from dlrm.reporting.record import read
from dlrm.reporting.words import measure

from .runs import evaluation, events, write_run


def test_a_good_run_misses_nothing(tmp_path: Path) -> None:
    record = read(write_run(tmp_path, final=evaluation()))
    assert record.missing == ()
    assert record.split == "test"
    assert record.last_step == record.final_step == 400
    assert len(record.steps) == 200
    assert {split: len(seen) for split, seen in record.evaluations.items()} == {
        "train": 10,
        "validation": 10,
    }


def test_the_test_split_speaks_before_validation(tmp_path: Path) -> None:
    write_run(tmp_path, final=evaluation() | {"split": "validation"})
    assert read(tmp_path).split == "validation"
    write_run(tmp_path, final=evaluation())
    assert read(tmp_path).split == "test"


def test_the_final_model_is_the_best_one(tmp_path: Path) -> None:
    final = evaluation()
    del final["step"]
    log = [*events(), {"event": "best", "step": 240, "metric": "auc", "value": 0.9}]
    assert read(write_run(tmp_path, log=log, final=final)).final_step == 240


def test_a_line_cut_off_by_a_kill_is_left_out_and_said(tmp_path: Path) -> None:
    record = read(write_run(tmp_path, log=events()[:30], tail='{"event":"train","st'))
    assert len(record.steps) + sum(map(len, record.evaluations.values())) <= 30
    assert any("cut off" in said for said in record.missing)
    assert any("no final evaluation" in said for said in record.missing)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("not json", "not JSON"), ("[1, 2]", "expected a JSON object"), ('{"step": 1}', '"event"')],
)
def test_another_line_that_is_not_an_event_is_an_error_with_its_place(
    tmp_path: Path, line: str, expected: str
) -> None:
    write_run(tmp_path, log=[])
    good = json.dumps(events()[0])
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: ") as caught:
        read(tmp_path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "dataset.json", "evaluation-test.json"]
)
@pytest.mark.parametrize("text", ['{"a":\n oops}', "[1]"])
def test_a_file_that_is_not_a_json_object_is_an_error_with_its_name(
    tmp_path: Path, name: str, text: str
) -> None:
    write_run(tmp_path, final=evaluation())
    (tmp_path / name).write_text(text if name != "config.json" else text.replace("[1]", "{}"))
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        read(tmp_path)


def test_bytes_that_are_not_text_are_an_error(tmp_path: Path) -> None:
    write_run(tmp_path, log=[])
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        read(tmp_path)


def test_steps_computed_twice_count_once(tmp_path: Path) -> None:
    log = events(400, 10, 40)
    # Killed at the end, taken up again at step 200: 210 to 400 are there twice
    later = [event for event in log if event["step"] > 200]
    record = read(write_run(tmp_path, log=[*log, {"event": "resumed", "step": 200}, *later]))
    assert [event["step"] for event in record.steps] == list(range(10, 401, 10))
    assert [event["step"] for event in record.evaluations["validation"]] == list(range(40, 401, 40))
    assert record.resumes == (200,)


@pytest.mark.parametrize("name", ["environment.json", "dataset.json", "metrics.jsonl"])
def test_a_file_that_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, final=evaluation())
    (tmp_path / name).unlink()
    record = read(tmp_path)
    assert any(name in said for said in record.missing)


def test_what_is_not_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("value", [None, "0.5", True, [1], {}])
def test_only_numbers_are_measures(value: object) -> None:
    assert measure(value, -1.0) == -1.0
    assert measure(10**400) == float("inf")
    assert measure(3) == 3.0
