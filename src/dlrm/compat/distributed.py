"""The original's distributed mode: which of the processes of a run this is.

torchrun names a process in RANK, WORLD_SIZE and LOCAL_RANK, launchers of MPI in variables of their
own. Tables are spread whole over all processes, and the MLPs copied. Each process takes its part of
every batch, and the first prints what is true of all of them.
"""

import os
from collections.abc import Mapping, MutableMapping

from dlrm.compat.flags import Flags
from dlrm.errors import ConfigError
from dlrm.parallel.world import ALONE, World

MPI = {
    "RANK": ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
    "LOCAL_RANK": ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    "LOCAL_WORLD_SIZE": (
        "MPI_LOCALNRANKS",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
}
"""torchrun's name of a variable -> those of Intel MPI and MPICH, Open MPI, and MVAPICH2."""

PORT = "29500"
"""The original's, where none is named."""

TIMEOUT_S = 1800.0
"""Timeout of an exchange, as in the original: the first may write a large model meanwhile."""


def translate(variables: MutableMapping[str, str]) -> None:
    """Name a process that a launcher of MPI has started as torchrun would.

    What stands there already stays, so that MPI may start torchruns.

    Raises:
        ConfigError: The processes are on several hosts, and none is named for them to meet at.

    """
    if not {"RANK", "WORLD_SIZE"} & variables.keys():
        values = {name: _first(variables, names) for name, names in MPI.items()}
        if values["RANK"] is None or values["WORLD_SIZE"] is None:
            return
        for name, value in values.items():
            if value is not None:
                variables.setdefault(name, value)
        local = values["LOCAL_WORLD_SIZE"]
        if "MASTER_ADDR" not in variables and local not in (None, variables["WORLD_SIZE"]):
            raise ConfigError(
                f"{variables['WORLD_SIZE']} processes, {local} of them on this host, and "
                "MASTER_ADDR is not set: set it to the host of rank 0, on all of them"
            )
    variables.setdefault("MASTER_ADDR", "127.0.0.1")
    variables.setdefault("MASTER_PORT", PORT)


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((variables[name] for name in names if name in variables), None)


def start(flags: Flags, variables: MutableMapping[str, str] = os.environ) -> World:
    """Return this process among those that a launcher started with it.

    Without `--dist-backend`, gloo carries what is exchanged.

    Raises:
        ConfigError: The backend is not there, or the processes were not started alike.
        WorldError: Another process did not come.

    """
    if variables.get("WORLD_SIZE", "1") == "1":
        return ALONE
    if flags.local_rank >= 0:
        variables["LOCAL_RANK"] = str(flags.local_rank)
    return World.from_environment(flags.dist_backend or "gloo", TIMEOUT_S)
