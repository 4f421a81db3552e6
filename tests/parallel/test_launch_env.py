import socket

import pytest

from dlrm.errors import ConfigError, WorldError
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.meeting import open_store
from dlrm.parallel.sockets import interface_to

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29500",
}


def test_what_torchrun_says():
    place = LaunchEnv.read(TORCHRUN)
    assert place == LaunchEnv(3, 4, 1, 2, "node-0", 29500)
    first = TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"}
    assert (place := LaunchEnv.read(first)) is not None
    assert place.hosts_store
    assert (place := LaunchEnv.read(first | {"TORCHELASTIC_USE_AGENT_STORE": "True"})) is not None
    assert not place.hosts_store
    assert place.launcher_hosts
    assert LaunchEnv.read({"MASTER_PORT": "1", "HOME": "/"}) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"RANK": None}, "WORLD_SIZE is set and RANK is not"),
        ({"WORLD_SIZE": None}, "RANK is set and WORLD_SIZE is not"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not"),
        ({"MASTER_PORT": None}, "MASTER_PORT is not"),
        ({"RANK": "4"}, 'RANK is "4", expected a whole number, 0 to 3'),
        ({"RANK": "-1"}, 'RANK is "-1"'),
        ({"RANK": "one"}, 'RANK is "one"'),
        ({"WORLD_SIZE": "0"}, 'WORLD_SIZE is "0", expected a whole number, 1 or more'),
        ({"LOCAL_RANK": "2"}, 'LOCAL_RANK is "2", expected a whole number, 0 to 1'),
        ({"MASTER_PORT": "99999"}, 'MASTER_PORT is "99999", expected a whole number, 1 to 65535'),
    ],
)
def test_nonsense_is_quoted(change: dict[str, str | None], expected: str):
    variables = {key: value for key, value in (TORCHRUN | change).items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        LaunchEnv.read(variables)
    assert expected in str(caught.value)
    assert "torchrun" in str(caught.value)


def place_at(address: str, port: int, *, hosts: bool) -> LaunchEnv:
    return LaunchEnv(0 if hosts else 1, 2, 0, 1, address, port)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            WorldError, match=f"port {port} is taken by another program.*MASTER_PORT"
        ):
            open_store(place_at("127.0.0.1", port, hosts=True), 5)
        # It takes the connection, and says nothing that a store would.
        with pytest.raises(WorldError, match=f"MASTER_PORT {port} is no process of this run"):
            open_store(place_at("127.0.0.1", port, hosts=False), 0.2)


def test_nobody_at_the_meeting_point():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(WorldError, match=rf"rank 0 cannot be reached .* {port} within 0.1 s"):
        open_store(place_at("127.0.0.1", port, hosts=False), 0.1)
    with pytest.raises(WorldError, match=r'MASTER_ADDR "nowhere\.invalid" is no host'):
        open_store(place_at("nowhere.invalid", port, hosts=False), 5)


def test_interface_of_an_address():
    assert interface_to("127.0.0.1", 1) == "lo"
    assert interface_to("nowhere.invalid", 1) is None
