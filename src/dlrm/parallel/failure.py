"""What went wrong between processes, out of what the backend says."""

import re

import torch.distributed as dist

_SOURCE = re.compile(r"^\[[^\]]*\.(?:cc|cpp|h):\d+\]\s*")
_BROKEN = re.compile(
    r"connection (?:closed|reset|refused)|closed by peer|timed out|timeout|broken pipe|"
    r"socket closed|no route to host|network is (?:unreachable|down)|host is down|"
    r"nccl (?:error|communicator)",
    re.IGNORECASE,
)


def is_connection_error(error: RuntimeError) -> bool:
    """Whether an error of `torch.distributed` speaks of another process, not of the program."""
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError | dist.DistBackendError):
        return True
    return bool(_BROKEN.search(str(error)))


def reason(error: BaseException) -> str:
    """Return the first sentence of a backend's error, without its place in the source."""
    text = _SOURCE.sub("", str(error).strip()).split("\n")[0]
    return re.split(r"\. (?=[A-Z])", text)[0].rstrip(".")
