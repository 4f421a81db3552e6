"""Two hosts on one machine: network namespaces that a cable joins. Needs root and `ip`, on Linux.

with two_hosts() as (first, second):
    process = first.start([sys.executable, "-m", "dlrm", ...], env={"MASTER_ADDR": first.address})
    second.plug(False)
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_count = 0


def missing() -> str | None:
    """Return why there can be no such hosts here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "network namespaces need `ip` and `tc`: apt-get install iproute2"
    name = f"dlrm-probe-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


@dataclass
class Host:
    """One of two hosts.

    Args:
        name: Of the namespace, and of the host.
        address: On the cable.
        cable: The network interface.

    """

    name: str
    address: str
    cable: str
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs another one on this host, under its name."""
        # unshare gives it a host name of its own; the processes stay direct children.
        inside = ["sh", "-c", 'hostname "$0"; exec "$@"', self.name, *words]
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", *inside]

    def start(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a process on this host; it is killed at the end of `two_hosts` at the latest."""
        process = subprocess.Popen(
            self.command(words), env=dict(os.environ) | dict(env or {}), **options
        )
        self.processes.append(process)
        return process

    def plug(self, in_: bool) -> None:
        """Plug the cable in or out; connections stay, as with a real one."""
        _ip("-n", self.name, "link", "set", self.cable, "up" if in_ else "down")

    def lose(self) -> None:
        """Lose packets sent from here, 10% of them where the kernel has netem.

        Elsewhere the cable becomes narrow, with a short queue, which loses those of a burst.
        """
        netem = ["netem", "loss", "10%"]
        narrow = ["tbf", "rate", "50mbit", "burst", "4kb", "limit", "8kb"]
        for loss in (netem, narrow):
            if self._queue("replace", *loss).returncode == 0:
                return
        raise OSError("this kernel can neither lose packets (netem) nor queue them (tbf)")

    def lost(self) -> int:
        """Return how many packets were lost so far."""
        shown = self._queue("show").stdout
        found = re.search(r"dropped (\d+)", shown)
        return int(found[1]) if found else 0

    def _queue(self, what: str, *words: str) -> subprocess.CompletedProcess[str]:
        root = ["root", *words] if words else []
        command = ["tc", "-n", self.name, "-s", "qdisc", what, "dev", self.cable, *root]
        return subprocess.run(command, check=False, capture_output=True, text=True)


def start_ranks(
    pair: tuple[Host, Host], command: Sequence[str], env: Mapping[str, str], **options: Any
) -> list[subprocess.Popen[Any]]:
    """Start rank 0 on the first host and rank 1 on the second."""
    return [
        host.start(
            command,
            env={
                "RANK": str(rank),
                "LOCAL_RANK": "0",
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "1",
                "MASTER_ADDR": pair[0].address,
                "MASTER_PORT": "29500",
                "OMP_NUM_THREADS": "1",
                **env,
            },
            **options,
        )
        for rank, host in enumerate(pair)
    ]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts that reach each other and nothing else; they go at the end."""
    global _count  # noqa: PLW0603
    _count += 1
    # Names of network interfaces have at most 15 letters.
    mark = f"{os.getpid() % 100_000}-{_count}"
    hosts = [
        Host(f"dlrm-{s}-{mark}", f"10.93.7.{n}", f"d{s}{mark}") for n, s in ((1, "a"), (2, "b"))
    ]
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            _ip("-n", host.name, "link", "set", "lo", "up")
        first, second = hosts
        # Made inside, so that machines that run several of these do not mix them up.
        _ip("-n", first.name, "link", "add", first.cable, "type", "veth",
            "peer", "name", second.cable, "netns", second.name)  # fmt: skip
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.cable)
            host.plug(True)
        yield first, second
    finally:
        for host in hosts:
            for process in host.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
