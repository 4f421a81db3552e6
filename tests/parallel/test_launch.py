"""Ranks as processes of this machine: how they start, fail and end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlrm import cores
from dlrm.errors import ConfigError
from dlrm.parallel import launch as launching
from dlrm.parallel.launch import launch

CHILD = [sys.executable, str(Path(__file__).parent / "child.py")]


def script(text: str) -> list[str]:
    """Return a command without torch, which starts faster."""
    return [sys.executable, "-c", "import os, sys, time, signal\n" + text]


WRITE = """
keys = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
values = {key: os.environ[key] for key in keys}
import json, pathlib
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps(values))
print("out", os.environ["RANK"])
print("err", os.environ["RANK"], file=sys.stderr)
"""


def test_each_rank_knows_its_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("RANK", "7")  # of a run around this one
    assert launch(3, [str(tmp_path)], command=script(WRITE)) == 0
    for rank in range(3):
        assert json.loads((tmp_path / str(rank)).read_text()) == {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "3",
            "LOCAL_WORLD_SIZE": "3",
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "3",
        }
    # The terminal is rank 0's.
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


def test_threads_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch(2, [str(tmp_path)], command=script(WRITE))
    values = json.loads((tmp_path / "1").read_text())
    assert values["OMP_NUM_THREADS"] == str(max(1, cores.count() // 2))


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        ("sys.exit('the reason')", 1, ["rank 2 ended with status 1", "rank 2: the reason"]),
        ("sys.exit(5)", 5, ["rank 2 ended with status 5"]),
        ("os.kill(os.getpid(), 9)", 137, ["rank 2 was killed by SIGKILL (out of memory?)"]),
        ("os.kill(os.getpid(), 11)", 139, ["rank 2 was killed by SIGSEGV"]),
    ],
)
def test_a_failure_is_named_and_ends_the_others(
    what: str,
    status: int,
    said: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(launching, "GRACE_S", 0.1)
    command = script(f"if os.environ['RANK'] == '2': {what}\ntime.sleep(1000)")
    assert launch(4, [], command=command) == status
    err = capfd.readouterr().err
    for part in said:
        assert part in err
    assert err.count("dlrm: ") == 1


def test_ranks_that_follow_are_not_blamed(capfd: pytest.CaptureFixture[str]):
    # Rank 1 sees the end of rank 2 before this process does.
    assert launch(3, [], command=script(
        "rank = os.environ['RANK']\n"
        "if rank == '1': sys.exit(3)\n"
        "time.sleep(.5)\n"
        "sys.exit(1 if rank == '2' else 3)"
    )) == 1  # fmt: skip
    assert "dlrm: rank 2 ended with status 1" in capfd.readouterr().err


def test_a_rank_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launching, "GRACE_S", 0.1)
    monkeypatch.setattr(launching, "TERM_S", 0.1)
    assert launch(2, [], command=script(
        "if os.environ['RANK'] == '1': time.sleep(.5); sys.exit(4)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "time.sleep(1000)"
    )) == 4  # fmt: skip


def test_no_number_of_processes():
    with pytest.raises(ConfigError, match="--procs is 0, expected 1 or more"):
        launch(0, [])


COUNT = """
import pathlib
path = pathlib.Path(sys.argv[1], os.environ["RANK"])
count = 0
def take(number, frame):
    global count
    count += 1
    path.write_text(f"{os.getpid()} {count}")
signal.signal(signal.SIGINT, take)
signal.signal(signal.SIGTERM, take)
path.write_text(f"{os.getpid()} 0")
while not path.with_name("end").exists():
    time.sleep(0.01)
sys.exit(130)
"""

LAUNCHER = """
import sys
from dlrm.parallel.launch import launch
sys.exit(launch(2, [sys.argv[1]], command=[sys.executable, "-c", sys.argv[2]]))
"""


def start_launcher(folder: Path) -> subprocess.Popen[bytes]:
    code = "import os, sys, time, signal\n" + COUNT
    command = [sys.executable, "-c", LAUNCHER, str(folder), code]
    # A group of its own stands for a terminal's foreground group.
    return subprocess.Popen(command, process_group=0)


def read(folder: Path, count: int) -> list[int]:
    """Wait until both ranks have taken `count` signals and return their process ids."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        said = [(folder / str(rank)).read_text().split() for rank in (0, 1)
                if (folder / str(rank)).exists()]  # fmt: skip
        if len(said) == 2 and all(len(s) == 2 and int(s[1]) >= count for s in said):
            return [int(s[0]) for s in said]
        time.sleep(0.01)
    raise AssertionError("the ranks did not take the signal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_rank_once(tmp_path: Path, number: signal.Signals):
    launcher = start_launcher(tmp_path)
    read(tmp_path, 0)
    for count in (1, 2):
        os.killpg(launcher.pid, number)
        processes = read(tmp_path, count)
    (tmp_path / "end").touch()
    assert launcher.wait(60) == 130
    for rank in (0, 1):
        assert (tmp_path / str(rank)).read_text().split()[1] == "2"
        assert not Path(f"/proc/{processes[rank]}").exists()


def test_no_rank_outlives_a_killed_launcher(tmp_path: Path):
    launcher = start_launcher(tmp_path)
    processes = read(tmp_path, 0)
    launcher.kill()
    launcher.wait()
    end = time.monotonic() + 60
    while any(alive(process) for process in processes):
        assert time.monotonic() < end, "a rank outlived its launcher"
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        # Field 3 after the name: an orphan that nobody has waited for yet is Z.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("procs", "event", "victim", "status", "said"),
    [
        (3, "kill", 1, 137, "no longer answers"),
        (2, "kill", 0, 137, "no longer answers"),
        (2, "data", 0, 1, "stopped: C3: id 7 is out of range"),
    ],
)
def test_survivors_name_who_is_gone(
    tmp_path: Path, procs: int, event: str, victim: int, status: int, said: str
):
    assert launch(procs, [str(tmp_path), event, str(victim)], command=CHILD) == status
    process = (tmp_path / f"process-{victim}").read_text()
    who = f"rank {victim} (host {os.uname().nodename}, process {process})"
    for rank in set(range(procs)) - {victim}:
        error = (tmp_path / f"error-{rank}").read_text()
        assert f"WorldError: {who} {said}" in error
        assert "go on with --resume" in error
