"""What a backend says when another process is gone, as one sentence; and calls that may hang."""

import re
import threading
from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")

_BROKEN = re.compile(
    r"connection (?:closed|reset|refused)|closed by peer|timed out|timeout|broken pipe|"
    r"socket closed|no route to host|network is (?:unreachable|down)|host is down|"
    r"nccl (?:error|communicator)",
    re.IGNORECASE,
)
# What gloo says, without its name, where another exchange over the same connection gave up.
_BESIDE = "Application timeout caused pair closure"


def is_connection_error(error: RuntimeError) -> bool:
    """Whether an error of `torch.distributed` speaks of another process, not of the program."""
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError | dist.DistBackendError):
        return True
    text = str(error)
    backend = re.search(r"gloo|nccl", text, re.IGNORECASE)
    return _BESIDE in text or bool(backend and _BROKEN.search(text))


def reason(error: BaseException) -> str:
    """Return the first sentence of a backend's error, without its place in the source."""
    if _BESIDE in str(error):
        return "Timed out, with another exchange under way"
    text = re.sub(r"^\[[^\]]*\.(?:cc|cpp|h):\d+\]\s*", "", str(error).strip()).split("\n")[0]
    return re.split(r"\. (?=[A-Z])", text)[0].rstrip(".")


def within(timeout_s: float, function: Callable[[], T]) -> T:
    """Return what a function returns, or give it up.

    The store's client waits for ever when the other side takes what it sends and says nothing,
    whatever its own timeout is.

    Raises:
        TimeoutError: The function did not return; its thread stays behind, as a daemon.

    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return results[0]
