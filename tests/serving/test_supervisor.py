"""A worker that dies is replaced, and its clients are told."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there a server has one")

ROW = b'{"city_id": 3, "device": "phone", "price": "1.5"}'


def score(url: str) -> dict:
    with urlopen(Request(f"{url}/score", data=ROW), timeout=30) as response:
        return json.loads(response.read())


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@contextmanager
def command(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run `dlrm serve` within the block; yields its process, the supervisor, and its URL."""
    words = [sys.executable, "-m", "dlrm", "serve", "visits", "--port", "0", "--json"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=folder, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r" at (\S+);", line)
        assert address is not None, line + process.stderr.read()
        yield process, address[1]
    finally:
        process.kill()
        process.communicate()


def test_a_worker_that_is_killed_under_load_is_replaced(folder: Path):
    with command(folder) as (process, url):
        expected = score(url)
        outcomes: list[object] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    outcomes.append(score(url))
                except (OSError, HTTPException) as error:
                    outcomes.append(error)
                    time.sleep(0.02)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            (worker,) = children(process.pid)
            count = len(outcomes)
            os.kill(worker, signal.SIGKILL)
            # Some are told, and others answered again.
            wait_for(lambda: any(isinstance(x, Exception) for x in outcomes[count:]))  # noqa: B023
            told = len(outcomes)
            wait_for(lambda: any(isinstance(x, dict) for x in outcomes[told:]))  # noqa: B023
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a client waits in silence"
        assert all(x == expected for x in outcomes if isinstance(x, dict))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert json.loads(out)["url"] == url
        assert err.count("the server died by SIGKILL: another one is started") == 2


def test_a_worker_ends_with_its_supervisor(folder: Path):
    with command(folder) as (process, _):
        (worker,) = children(process.pid)
        process.kill()
        wait_for(lambda: gone(worker))


def test_ctrl_c_in_a_terminal_ends_it_once(folder: Path):
    with command(folder) as (process, _):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("run", "status", "runs"),
    [
        ("return 7", 7, 1),
        ("raise SystemExit(2)", 2, 1),
        ("raise ValueError", 1, 1),
        ("os._exit(5)", 5, 4),
        ("os.kill(os.getpid(), 9)", 1, 4),
        # Once ready, an end that it does not want is another start.
        (
            "Post.mine.ready((1, None)) if Post.mine.ports is None else sys.exit(3); os._exit(0)",
            3,
            2,
        ),
    ],
)
def test_ends_of_a_worker(tmp_path, run, status, runs):
    program = f"""
import os, sys
from dlrm.serving import supervisor
from dlrm.serving.supervisor import Post
supervisor._FIRST_DELAY_S = 0.01
def run():
    open("runs", "a").write("x")
    {run}
sys.exit(supervisor.supervise(run))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False, timeout=60)
    assert done.returncode == status
    assert len((tmp_path / "runs").read_text()) == runs
