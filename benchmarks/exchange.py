"""The exchange of vectors between two processes, beside what their connection carries at most.

    python benchmarks/exchange.py BYTES        as a process of a world of two

Both ways are timed: vectors there, gradients back. The bound is the same bytes through one plain
connection, in both directions at once, with nothing computed around it.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from dlrm.bench.processes import answers
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.exchange import AllToAll, Exchange
from dlrm.parallel.world import World

ROUNDS = 40


def main(sizes: list[int]) -> None:
    """Write one JSON line with seconds of each size, from the first process.

    Args:
        sizes: Bytes that each process has for the other.

    """
    torch.set_num_threads(1)
    # As the training loop does.
    keep_freed_memory()
    with World.from_environment("gloo") as world:
        if world.size != 2:
            raise SystemExit(f"{world.size} processes, expected 2")
        line = _connected(world)
        exchange = Exchange(world.rank, 2, world.exchange, samples=(1, 1))
        rows = []
        for size in sizes:
            numbers = size // 4
            vectors = torch.randn(2 * numbers, requires_grad=True)
            grad = torch.randn(2 * numbers)
            sent, room = bytes(size), bytearray(size)

            def exchanged(vectors=vectors, grad=grad, numbers=numbers) -> None:
                both = AllToAll(exchange, [numbers, numbers], [numbers, numbers])
                both.end(both.begin(vectors)).backward(grad)
                vectors.grad = None

            def carried(sent=sent, room=room) -> None:
                for _ in range(2):
                    _both_ways(line, sent, room)

            rows.append(
                {
                    "bytes": size,
                    "exchange_s": _timed(world, exchanged),
                    "bound_s": _timed(world, carried),
                }
            )
        line.close()
        if world.first:
            print(json.dumps(rows), flush=True)


def measure(sizes: list[int]) -> list[dict[str, Any]]:
    """Return what `main` writes, of two processes of one thread each."""
    return answers([__file__, *map(str, sizes)], 2, None)[0]


def _timed(world: World, run: Callable[[], None]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        world.barrier()
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return median(seconds[ROUNDS // 4 :])


def _connected(world: World) -> socket.socket:
    """Return one connection between both processes."""
    if world.first:
        with socket.create_server(("127.0.0.1", 0)) as server:
            world.broadcast_object(server.getsockname()[1])
            line, _ = server.accept()
    else:
        line = socket.create_connection(("127.0.0.1", world.broadcast_object(None)))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _both_ways(line: socket.socket, sent: bytes, room: bytearray) -> None:
    sender = threading.Thread(target=line.sendall, args=(sent,))
    sender.start()
    view = memoryview(room)
    while view:
        view = view[line.recv_into(view) :]
    sender.join()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
