from pathlib import Path

from dlrm.reporting import write
from dlrm.reporting.record import read

from .runs import CONFIG, evaluation, events, metrics, write_run

SIZE = 3


def write_ensemble(folder: Path, *, begun: int = SIZE, done: int = SIZE) -> Path:
    """Write the run of an ensemble; a finished one where all its members are."""
    config = {**CONFIG, "ensemble": SIZE, "ensemble_mean": "logits"}
    final = None
    if done == SIZE:
        scored = [
            {"model": "dlrm", "seed": k, "metrics": metrics(0.80 + k / 1000, 0.462)}
            for k in range(SIZE)
        ]
        final = {**evaluation(0.8071), "model": "dlrm x 3", "members": scored}
        del final["step"]
    write_run(folder, config=config, final=final, log=[])
    (folder / "metrics.jsonl").unlink()
    for k in range(begun):
        mine = evaluation(0.80 + k / 1000) if k < done else None
        write_run(folder / "members" / str(k), config={**CONFIG, "seed": k}, final=mine)
    return folder


def test_a_finished_ensemble_misses_nothing(tmp_path: Path) -> None:
    record = read(write_ensemble(tmp_path))
    assert record.missing == ()
    assert (record.name, record.size, len(record.members)) == ("dlrm x 3", 3, 3)
    assert record.samples == sum(member.samples for member in record.members) > 0
    assert record.elapsed_s == sum(member.elapsed_s for member in record.members) > 0


def test_the_page_says_openly_whose_scores_these_are(tmp_path: Path) -> None:
    page = write(write_ensemble(tmp_path)).read_text()
    assert "mean of 3 models&#39; logits (dlrm x 3); each alone reaches 0.8010 on average" in page
    assert "3 members" in page
    for value in ("0.8000", "0.8010", "0.8020", "0.8071"):
        assert value in page
    assert "Validation AUC of the members" in page
    assert "Not drawn" not in page


def test_a_stopped_ensemble_says_how_far_it_got(tmp_path: Path) -> None:
    for begun, done in ((0, 0), (2, 1)):
        folder = write_ensemble(tmp_path / str(begun), begun=begun, done=done)
        page = write(folder).read_text()
        assert f"{done} of 3 members are trained" in page
        assert page.count("<h2>") >= 3


def test_one_model_has_no_members(tmp_path: Path) -> None:
    record = read(write_run(tmp_path, final=evaluation(), log=events()))
    assert (record.size, record.members) == (1, ())
    assert "members</h2>" not in write(tmp_path).read_text()
