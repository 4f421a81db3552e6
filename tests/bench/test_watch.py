"""What else the machine did, from what the system says of its cores."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlrm.bench import watch
from dlrm.bench.watch import Seen, Watch

TICKS = os.sysconf("SC_CLK_TCK")
TIMES = st.lists(st.integers(0, 10**7), min_size=8, max_size=10)


class Stat:
    """A file like /proc/stat, of two cores of which this process may use one, and its clock."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        self.path = path
        self.own = 0.0
        monkeypatch.setattr(watch, "STAT", path)
        monkeypatch.setattr(watch, "usable_cores", lambda: {1})
        monkeypatch.setattr(time, "process_time", lambda: self.own)
        self.say()

    def say(self, user=0.0, system=0.0, idle=0.0, stolen=0.0) -> None:
        ticks = [round(seconds * TICKS) for seconds in (user, 0, system, idle, 0, 0, 0, stolen)]
        other = [str(10**6 * (1 + tick)) for tick in ticks]
        self.path.write_text(
            f"cpu  {' '.join(other)}\ncpu0 {' '.join(other)}\n"
            f"cpu1 {' '.join(map(str, ticks))} 0 0\nintr 3 4\n"
        )


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stat:
    return Stat(tmp_path / "stat", monkeypatch)


def test_stolen_time_and_that_of_others_are_shares_of_our_cores(stat: Stat) -> None:
    with Watch() as watching:
        stat.own = 4.0
        stat.say(user=5.0, system=1.0, idle=3.0, stolen=1.0)
    # What comes later is not seen.
    stat.say(user=500.0)
    seen = watching.seen
    assert seen.steal_share == pytest.approx(0.1)
    assert seen.others_share == pytest.approx(0.2)
    assert seen.threads == torch.get_num_threads()
    assert seen.cores == 1
    assert set(seen.to_dict()) == {"threads", "load", "steal_share", "others_share"}


def test_within_a_watch_it_says_what_it_saw_up_to_now(stat: Stat) -> None:
    with Watch() as watching:
        assert watching.seen.steal_share is None
        stat.say(idle=9.0, stolen=1.0)
        assert watching.seen.steal_share == pytest.approx(0.1)


def test_our_own_time_is_nobody_elses(stat: Stat) -> None:
    with Watch() as watching:
        # The system counts in hundredths: we may seem to have had more than there was.
        stat.own = 5.02
        stat.say(user=5.0, idle=5.0)
    assert watching.seen.others_share == 0.0
    assert watching.seen.warning is None or "load" not in watching.seen.warning


@given(before=TIMES, more=TIMES, own=st.floats(0, 1e6))
def test_shares_lie_between_nothing_and_all(before, more, own, tmp_path_factory) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stat = Stat(tmp_path_factory.mktemp("proc") / "stat", monkeypatch)
        stat.path.write_text(f"cpu1 {' '.join(map(str, before))}\n")
        with Watch() as watching:
            stat.own = own
            after = [a + b for a, b in zip(before, more, strict=False)]
            stat.path.write_text(f"cpu1 {' '.join(map(str, after))}\n")
        seen = watching.seen
        if not sum(more[: min(8, len(after))]):
            assert seen.steal_share is None
        else:
            assert seen.steal_share is not None
            assert 0.0 <= seen.steal_share <= 1.0
            assert seen.others_share is not None
            assert 0.0 <= seen.others_share <= 1.0


@pytest.mark.parametrize("content", [None, "", "cpu1 1 2 3\n", "cpu0 1 2 3 4 5 6 7 8\n"])
def test_what_the_system_does_not_tell_is_unknown(stat: Stat, content: str | None) -> None:
    stat.path.unlink()
    if content is not None:
        stat.path.write_text(content)
    with Watch() as watching:
        pass
    assert watching.seen.steal_share is None
    assert watching.seen.others_share is None


def test_the_real_file_is_understood() -> None:
    with Watch() as watching:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.05:
            pass
    seen = watching.seen
    assert seen.load >= 0
    assert seen.cores >= 1
    assert seen.steal_share is None or 0 <= seen.steal_share <= 1


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Seen(2, 2, 3.1, 0.0, 0.01), None),
        (Seen(2, 2, 3.1, 0.04, 0.35), "another program computed meanwhile: 35% of the time; the "
         "hypervisor took 4% of the time; load 3.1 on 2 cores"),
        (Seen(1, 1, 0.2, 0.04, 0.0), "the hypervisor took 4% of the time; load 0.2 on 1 core"),
        (Seen(2, 2, 0.2, None, None), None),
        (Seen(2, 2, 3.1, None, None), "another program may have computed meanwhile; load 3.1 on "
         "2 cores"),
    ],
)  # fmt: skip
def test_a_warning_says_what_disturbed(seen: Seen, said: str | None) -> None:
    assert seen.warning == said


def test_what_descendants_take_is_not_that_of_others() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    nested = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    before = sum(watch._descendants())
    for script in (burn, nested):
        with subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert sum(watch._descendants()) - before >= 0.15 * TICKS
            child.communicate(b"\n")
    assert sum(watch._descendants()) - before < 0.15 * TICKS
