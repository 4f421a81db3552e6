"""`dlrm bench machine`: what it says, keeps and appends. No test looks at how fast anything was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import machines, tiny
from bench.tiny import Fixed
from dlrm import cli
from dlrm.bench import calibrate, known, probe, results
from dlrm.bench import machine as measuring
from dlrm.bench.watch import Seen
from dlrm.commands.bench import machine as bench_machine
from dlrm.commands.bench.machine import MachineResult
from dlrm.commands.bench.machine import bench_machine as command
from dlrm.errors import ConfigError
from dlrm.planning import facts, machine
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.facts import Facts
from dlrm.reporting import bench as page
from dlrm.reporting.page import render

COSTS = machines.COSTS
BUSY = Seen(threads=1, cores=1, load=0.0, steal_share=0.0, others_share=0.5)


@pytest.fixture(autouse=True)
def little(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny tables and products, no time to look at them, and no models to fit costs to."""
    tiny.measured(monkeypatch, workdir / "machines")
    monkeypatch.setattr(calibrate, "calibrate", lambda *_: COSTS)


def said(result: MachineResult, capsys: pytest.CaptureFixture[str]) -> str:
    from dlrm import terminal

    capsys.readouterr()
    terminal.out.print(result)
    return capsys.readouterr().out


def test_a_machine_is_measured_kept_and_appended(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "machine", "--out", "rows.jsonl", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["fingerprint"] == facts.facts().fingerprint
    assert Facts.from_dict(found["facts"]) == facts.facts()
    assert found["costs"] == COSTS.to_dict()
    assert found["changed"] == {}
    assert found["threads"] == torch.get_num_threads()
    assert Path(found["kept"]).is_file()
    kept = machine.load()
    assert kept is not None
    assert kept.ceilings == Ceilings.from_dict(found["ceilings"])
    (row,) = results.load(Path("rows.jsonl"))
    assert (row["schema"], row["suite"]) == (results.SCHEMA, "machine")
    assert row["machine"] == found["fingerprint"]
    for name in ("facts", "ceilings", "costs", "steal_share"):
        assert row[name] == found[name]


def test_the_screen_has_facts_ceilings_curve_and_fingerprint(capsys) -> None:
    text = said(command(), capsys)
    assert facts.facts().cpu in text
    for words in ("instruction sets", "copy", "fp32", "random rows", "smallest call", "64 KiB"):
        assert words in text
    assert f"Fingerprint: {facts.facts().fingerprint}." in text
    assert "█" in text


def test_counters_that_are_missing_are_unavailable(capsys) -> None:
    found = command()
    bare = replace(found.machine.facts, counters=("cycles",), caches=(), instructions=())
    text = said(replace(found, machine=replace(found.machine, facts=bare)), capsys)
    text = " ".join(text.split())
    assert "cycles available, instructions unavailable, cache-misses unavailable" in text
    assert "caches unknown" in text
    assert "instruction sets unknown" in text


def test_what_changed_since_the_last_time_is_said(capsys) -> None:
    first = command()
    assert "Since" not in said(first, capsys)
    copy = {threads: 2 * rate for threads, rate in first.machine.ceilings.copy.items()}
    doubled = replace(first.machine, ceilings=replace(first.machine.ceilings, copy=copy))
    second = replace(first, machine=doubled, before=first.machine)
    assert second.changed() == {f"copy {threads}": pytest.approx(2.0) for threads in copy}
    text = " ".join(said(second, capsys).split())
    assert f"{len(copy)} of {len(doubled.ceilings.rates())} ceilings changed by more" in text
    assert "copy 1 2.00x" in text
    same = replace(first, before=first.machine)
    assert "0 of" in said(same, capsys)


def test_where_it_cannot_be_kept_it_is_still_shown(capsys, monkeypatch) -> None:
    Path("machines").write_text("a file in the place of the folder")
    found = command()
    assert found.kept is None
    assert "Not kept" in said(found, capsys)


def test_what_was_disturbed_replaces_nothing_that_was_not(capsys, monkeypatch) -> None:
    monkeypatch.setattr(probe, "Watch", lambda: tiny.Fixed(BUSY))
    first = command()
    assert first.kept is None
    assert machine.load() is None
    assert "No ceilings" in said(first, capsys)
    monkeypatch.setattr(probe, "Watch", lambda: tiny.Fixed(tiny.QUIET))
    quiet = command()
    assert quiet.kept is not None
    assert "No ceilings" not in said(quiet, capsys)
    monkeypatch.setattr(probe, "Watch", lambda: tiny.Fixed(BUSY))
    third = command()
    assert third.kept is None
    assert machine.load() == quiet.machine
    assert "it is measured again next time" in said(third, capsys)


def test_what_another_program_disturbed_is_measured_again(capsys, monkeypatch) -> None:
    busy = Seen(1, 2, 2.0, 0.0, 0.4)
    for watching in (known, bench_machine):
        monkeypatch.setattr(watching, "Watch", lambda: Fixed(busy))
    found = command()
    assert found.kept is None
    assert "40% of the time" in said(found, capsys)
    assert "it is measured again next time" in said(found, capsys)
    row = found.row() | {"cores": 2}
    assert "Doubtful: machine: another program computed meanwhile: 40%" in render(page.page([row]))
    known.known()
    err = " ".join(capsys.readouterr().err.split())
    assert "not kept, and measured again next time: another program computed" in err
    assert machine.load() is None


def test_a_page_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(page, "write", lambda path, rows: drawn.append((path, rows)))
    found = command(html=Path("machine.html"))
    ((path, (row,)),) = drawn
    assert path == Path("machine.html")
    assert row["ceilings"] == found.machine.ceilings.to_dict()


def test_memory_that_is_too_short_is_said_with_the_numbers(capsys, monkeypatch) -> None:
    monkeypatch.setattr(measuring, "free_bytes", lambda: 10**9)
    with pytest.raises(ConfigError, match=r"1\.0 GB of memory are free"):
        command()
    assert cli.main(["bench", "machine"]) == 1
    assert "needs" in capsys.readouterr().err
    assert not Path("machines").exists()
