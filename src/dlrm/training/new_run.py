"""A new run directory: its name, and what it says of the run, the data and the machine."""

import platform
import sys
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dlrm
from dlrm import cores
from dlrm.data.features.features import Features
from dlrm.data.store import Dataset
from dlrm.errors import RunError
from dlrm.parallel.launch_env import launch_id
from dlrm.parallel.world import ALONE, World
from dlrm.planning.facts import cpu_name, memory_bytes
from dlrm.run import Run
from dlrm.training.config import TrainConfig, to_dict


def new_folder(recipe: str) -> Path:
    """Return a run directory under `runs/` for this recipe or command, not yet made."""
    name = f"{recipe.replace(':', '-')}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    # Small runs end within a second.
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(path for folder in names if not (path := Path("runs") / folder).exists())


def create_run(
    path: Path, recipe: str, config: TrainConfig, dataset: Dataset, world: World = ALONE
) -> Run:
    """Make a run directory with everything that later commands need to know; rank 0 writes it.

    Raises:
        RunError: The folder exists and is not empty.

    """
    if world.first:
        Run.create(
            path,
            recipe=recipe,
            config=to_dict(config),
            schema=dataset.schema,
            environment=environment() | ({"processes": world.size} if world.size > 1 else {}),
            dataset={**dataset.summary(), "path": str(dataset.path.resolve())},
            contents=partial(_save_features, dataset),
        )
    world.barrier()
    try:
        return Run.open(path, silent=not world.first)
    except RunError as error:
        raise RunError(
            f"{error}, which rank 0 has just made: all processes must share the folder of the run"
        ) from error


def _save_features(dataset: Dataset, path: Path) -> dict[str, Any]:
    """Put the features of a dataset into a run directory; return its records of their files."""
    Features.load(dataset.path).save(path)
    return dataset.manifest["files"]


def environment() -> dict[str, Any]:
    """Return what a run runs on, JSON-ready."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "dlrm": dlrm.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "polars": version("polars"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": cores.count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(),
        "launch": launch_id(),
    }
