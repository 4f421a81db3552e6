"""Bytes that are no requests, or not all of one: refused or cut off, and nobody else notices."""

import json
import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from served import Served, serving

from bench.scripts import script

MUTANTS = script("mutants")
ROW = json.dumps({"city_id": 3, "device": "phone", "price": 1.5}).encode()
WHOLE = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(ROW), ROW)
LAST = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
"""A request after which the server closes the connection, if it has not done so before."""


@pytest.fixture(scope="module")
def visits(folder: Path):
    with serving(folder / "visits", timeout_s=1.0) as served:
        yield served


def heard(served: Served, sent: bytes) -> bytes:
    """Return all that comes back on a connection of its own, until it is closed."""
    answer = b""
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=60) as client:
        # It may be cut off before it has sent all.
        with suppress(ConnectionError):
            client.sendall(sent)
        with suppress(ConnectionError):
            while part := client.recv(1 << 16):
                answer += part
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


@pytest.mark.parametrize("wrong", MUTANTS.WIRE)
def test_what_is_no_http_is_refused(visits: Served, wrong: str):
    answer = heard(visits, MUTANTS.WIRE[wrong] + LAST)
    assert all(status < 500 for status in statuses(answer)), answer
    assert statuses(heard(visits, WHOLE + LAST)) == [200, 200]


@pytest.mark.parametrize("missing", [name for name in MUTANTS.UNFINISHED if name != "half a head"])
def test_a_body_that_does_not_come_has_its_time(visits: Served, missing: str):
    assert statuses(heard(visits, MUTANTS.UNFINISHED[missing]))[-1:] == [408]
    assert statuses(heard(visits, WHOLE + LAST)) == [200, 200]


def test_pipelined_requests_are_answered_in_order(visits: Served):
    paths = (b"/v2", b"/nothing", b"/v2/health/live", b"/v2/models/visits", b"/score")
    sent = b"".join(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths)
    assert statuses(heard(visits, sent + WHOLE + LAST)) == [200, 404, 200, 200, 405, 200, 200]
    assert statuses(heard(visits, WHOLE + b"zz\r\n\r\n"))[:1] == [200]


def test_a_request_byte_by_byte_is_answered(visits: Served):
    with socket.create_connection(("127.0.0.1", visits.server.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in WHOLE:
            client.send(bytes([byte]))
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_hundreds_who_wait_leave_room_for_others(visits: Served):
    address = ("127.0.0.1", visits.server.port)
    idle = [socket.create_connection(address) for _ in range(300)]
    try:
        for number, client in enumerate(idle):
            client.sendall([*MUTANTS.UNFINISHED.values(), b""][number % 6])
        assert statuses(heard(visits, WHOLE + LAST)) == [200, 200]
    finally:
        for client in idle:
            client.close()
    assert statuses(heard(visits, WHOLE + LAST)) == [200, 200]


def test_mutants_over_the_wire(visits: Served):
    small_runs = script("small_runs")
    predictor = visits.repository.find("visits").predictor
    one = small_runs.example("visits", predictor, small_runs.ROWS["visits"])
    mutants = MUTANTS.Mutants([one], 2)
    for number in range(300):
        sent = mutants[number].wire("connection: close")
        assert all(status < 500 for status in statuses(heard(visits, sent))), sent
    assert statuses(heard(visits, WHOLE + LAST)) == [200, 200]
