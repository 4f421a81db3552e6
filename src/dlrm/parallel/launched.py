"""What the launcher of this process says of it: `dlrm train --procs`, or torchrun."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlrm.errors import RunError
from dlrm.json_file import read_json

BY_US = "DLRM_LAUNCHED"
"""Set for processes that leave their result to the one that started them."""


def by_us() -> bool:
    """Return whether the process that started this one prints the result."""
    return BY_US in os.environ


@contextmanager
def speaking() -> Iterator[None]:
    """Let processes that are started within leave their result to this one."""
    os.environ[BY_US] = "1"
    try:
        yield
    finally:
        del os.environ[BY_US]


def launch_id() -> str | None:
    """Return what is the same for all starts that one torchrun makes, else None."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    # Its id may be the same for all jobs, its process not.
    return None if run_id is None else f"{run_id}/{os.getppid()}"


def restarted(run: str | None) -> Path | None:
    """Return the run directory that this process is to go on with, after torchrun's restart.

    Args:
        run: The directory that the user named, if any.

    Returns:
        None unless torchrun has started all processes anew, and the run had begun.

    """
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    if run is not None:
        return Path(run) if (Path(run) / "config.json").is_file() else None
    for config in sorted(Path("runs").glob("*/config.json"), reverse=True):
        environment = read_json(config.parent / "environment.json", RunError)
        if environment.get("launch") == launch_id():
            return config.parent
    return None
