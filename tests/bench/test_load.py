"""What makes load: a client, MLPerf's generator in a process of its own, sizes of queries."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import exp
from pathlib import Path
from statistics import mean, pvariance

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.bench.load import client as clients
from dlrm.bench.load.client import Client, request
from dlrm.bench.load.driver import Generator, Target, Task, together
from dlrm.bench.load.generator import read_requests, write_requests
from dlrm.bench.load.requests import MLPERF, MOST_ROWS, SIGMA, Sizes
from dlrm.errors import ConfigError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
Answer = Callable[[socket.socket, bytes], object]


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """Listen, and answer what a connection sends first and then again, until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection:
            while piece := connection.recv(1 << 16):
                try:
                    answer(connection, piece)
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=[connection], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class Ends:
    """Collects the ends of requests."""

    def __init__(self, count: int):
        self.by_key: dict[int, bool] = {}
        self._count, self._whole = count, threading.Event()

    def __call__(self, ends: list[tuple[int, bool]]) -> None:
        for key, ok in ends:
            assert key not in self.by_key, "a request ends once"
            self.by_key[key] = ok
        if len(self.by_key) == self._count:
            self._whole.set()

    def all(self) -> dict[int, bool]:
        assert self._whole.wait(30)
        return self.by_key


def sent(answer: Answer, count: int, connections: int = 3) -> dict[int, bool]:
    """Send requests to a server that answers like this, and return whether each was answered."""
    ends = Ends(count)
    with server(answer) as port:
        client = Client("127.0.0.1", port, connections, ends)
        for key in range(count):
            client.send(key, request("here", f"/{key}"))
        outcome = ends.all()
        client.close()
    return outcome


def test_all_requests_are_answered_over_few_connections():
    assert sent(lambda connection, _: connection.sendall(OK), 200) == dict.fromkeys(
        range(200), True
    )


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(1, len(OK) - 1), max_size=4))
def test_answers_may_come_in_pieces(cuts):
    def answer(connection: socket.socket, _: bytes) -> None:
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(OK)], strict=True):
            connection.sendall(OK[start:stop])

    assert sent(answer, 4) == dict.fromkeys(range(4), True)


def test_other_statuses_and_lost_connections_are_failures():
    def answer(connection: socket.socket, piece: bytes) -> None:
        number = int(piece.split(b" ")[1][1:])
        if number % 3 == 0:
            connection.sendall(OK)
        elif number % 3 == 1:
            connection.sendall(b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n")
        else:
            connection.shutdown(socket.SHUT_RDWR)

    assert sent(answer, 60) == {key: key % 3 == 0 for key in range(60)}


def test_a_server_that_goes_away_fails_what_waits():
    ends = Ends(50)
    with server(lambda *_: None) as port:
        client = Client("127.0.0.1", port, 2, ends)
        for key in range(20):
            client.send(key, request("here", "/"))
        # Nobody listens any more, and those that are connected are lost.
        client._connections[0]._address = client._connections[1]._address = ("127.0.0.1", 1)
        for connection in client._connections:
            connection.abort()
        for key in range(20, 50):
            client.send(key, request("here", "/"))
        assert ends.all() == dict.fromkeys(range(50), False)
        client.close()


def test_a_server_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(clients, "SILENCE_S", 1)
    assert sent(lambda *_: None, 10) == dict.fromkeys(range(10), False)


def test_requests_are_what_they_were(tmp_path: Path):
    requests = [request("here", "/a"), request("here", "/b", b"body", [("x", "y")])]
    assert requests[1] == (
        b"POST /b HTTP/1.1\r\nhost: here\r\nx: y\r\ncontent-length: 4\r\n\r\nbody"
    )
    assert read_requests(str(write_requests(tmp_path, requests, [1, 7]))) == (requests, [1, 7])


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    with Generator() as generator:
        yield generator


def test_arrivals_are_those_of_poisson(generator: Generator):
    # How many are due in a time is drawn beforehand, whatever the machine does: it varies as
    # much as its mean, where even gaps would always give the same.
    counts = [
        generator.run(Task(scenario="server", seconds=0.02, rate=2000.0, seed=seed)).requests
        for seed in range(40)
    ]
    assert mean(counts) == pytest.approx(40, rel=0.1)
    assert 0.4 < pvariance(counts) / mean(counts) < 2.2
    repeated = Task(scenario="server", seconds=0.02, rate=2000.0, seed=3)
    assert generator.run(repeated).requests == counts[3]


def test_each_scenario_reaches_the_server(generator: Generator, tmp_path: Path):
    write_requests(tmp_path, [request("here", f"/{n}") for n in range(8)], [2] * 8)
    with server(lambda connection, _: connection.sendall(OK)) as port:
        target = Target("127.0.0.1", port, 4, str(tmp_path))
        for task in (
            Task(scenario="offline", seconds=0.1, rate=500.0, target=target),
            Task(scenario="single", seconds=0.05, target=target),
            Task(scenario="server", seconds=0.1, rate=300.0, target=target),
        ):
            outcome = generator.run(task)
            assert outcome.requests > 0
            assert outcome.failed == 0
            assert outcome.rows_per_s == pytest.approx(2 * outcome.requests_per_s)
            assert 0 < outcome.p50_ms <= outcome.p90_ms <= outcome.p99_ms <= outcome.p999_ms
            if task.scenario == "offline":
                assert outcome.requests == 50


def test_latency_counts_from_when_a_query_was_due(generator: Generator, tmp_path: Path):
    # One connection, and answers that take longer than the gaps: who waits for the connection
    # waits, although each answer comes quickly once it is asked for.
    write_requests(tmp_path, [request("here", "/")], [1])
    pause = threading.Event()

    def answer(connection: socket.socket, _: bytes) -> None:
        pause.wait(0.01)
        connection.sendall(OK)

    with server(answer) as port:
        target = Target("127.0.0.1", port, 1, str(tmp_path))
        outcome = generator.run(Task(scenario="server", seconds=0.2, rate=400.0, target=target))
        assert outcome.p99_ms > 10 * 10
        assert not outcome.cut
        cut = generator.run(
            Task(scenario="server", seconds=2.0, rate=400.0, limit_ms=1.0, target=target)
        )
        assert cut.cut
        assert cut.requests < 400


def test_a_rate_of_nothing_ends(generator: Generator):
    assert generator.run(Task(scenario="server", seconds=0.05, rate=0.0)).requests < 100


def test_several_processes_make_load_at_once(generator: Generator):
    with Generator() as other:
        task = Task(scenario="server", seconds=0.05, rate=400.0)
        assert [outcome.failed for outcome in together([generator, other], [task, task])] == [0, 0]


def test_a_process_that_ended_says_why():
    with Generator() as generator:
        target = Target("127.0.0.1", 1, 1, "nowhere")
        with pytest.raises(ConfigError, match=r"has ended: FileNotFoundError.*nowhere"):
            generator.run(Task(scenario="single", seconds=0.1, target=target))


@given(seed=st.integers(0, 1000))
def test_sizes_of_queries_are_those_of_their_distribution(seed):
    rng = np.random.default_rng(seed)
    assert set(Sizes.parse("64").draw(100, rng)) == {64}
    drawn = Sizes.parse("mlperf").draw(20_000, rng)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == sorted(set(MLPERF))
    expected = [MLPERF.count(value) / len(MLPERF) for value in values]
    assert counts / len(drawn) == pytest.approx(expected, abs=0.015)
    sizes = Sizes.parse("lognormal:100").draw(20_000, rng)
    assert sizes.min() >= 1
    assert sizes.max() <= MOST_ROWS
    quantiles = [100 * exp(SIGMA * z) for z in (-1.2816, 0.0, 1.2816)]
    assert np.quantile(sizes, [0.1, 0.5, 0.9]) == pytest.approx(quantiles, rel=0.08)


@pytest.mark.parametrize("word", ["", "0", "5000", "-1", "lognormal", "lognormal:0", "mlperf:3"])
def test_what_is_no_size_is_refused(word):
    with pytest.raises(ConfigError, match="expected"):
        Sizes.parse(word)
