"""Processes of this machine that measure together, each told on standard input what to do."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dlrm.errors import ConfigError


def start(
    words: Sequence[str], count: int, threads: int = 1, *, alone: bool = False
) -> list[subprocess.Popen[str]]:
    """Start Python with some words (`-m` and a module) as the ranks of a world, or `alone`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    common = {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    processes = []
    for rank in range(count):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        named = {} if alone else {name: str(value) for name, value in world.items()}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-P", *words],
                env={**os.environ, **common, **named},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def answers(words: Sequence[str], count: int, task: Any, threads: int = 1) -> list[Any]:
    """Return what each of several processes, given a task as JSON, writes as its last line of JSON.

    Raises:
        ConfigError: One has ended; says why.

    """
    processes = start(words, count, threads)
    try:
        for process in processes:
            assert process.stdin is not None
            # One that ended at once is heard below.
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(task))
                process.stdin.close()
            process.stdin = None
        heard = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, complaint) in zip(processes, heard, strict=True):
        if process.returncode:
            lines = complaint.strip().splitlines()
            why = lines[-1] if lines else f"a process ended with {process.returncode}"
            raise ConfigError(f"a process that measured has ended: {why}")
    return [json.loads(line.splitlines()[-1]) if line.strip() else None for line, _ in heard]
