"""Do several processes learn what one learns? Loss by loss over 50 steps, and whole trainings.

    python benchmarks/parity.py [--html parity.html]

First `dlrm parity` with every engine, sharding and optimizer. Then whole trainings with three
seeds: on one process, on two, and on one that takes the samples of each batch in another order,
which shows what rounding alone does. The differences are held against those between seeds.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlrm.bench.results import append
from dlrm.commands.parity import default, parity
from dlrm.data.store import Dataset
from dlrm.parallel.config import Engine
from dlrm.parallel.launch import launch
from dlrm.recipes import find
from dlrm.run import Run
from dlrm.terminal import out
from dlrm.training import reordered
from dlrm.training.config import TrainConfig
from dlrm.training.run_data import open_data
from dlrm.training.trainer import Trainer

WAYS = ("one process", "two processes", "one process, reordered")


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--procs", default="1,2,3,4")
    flags.add_argument("--seeds", type=int, default=3, help="of the whole trainings")
    flags.add_argument("--html", type=Path, help="a page with the losses of the 50 steps")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    given = flags.parse_args(list(words))
    few: dict[str, Any] = {"shardings": ("row",), "optimizers": ("adagrad",)}
    data = "clicks:3000" if given.quick else find("demo")().data
    engines: list[Engine] = ["dlrm"]
    if find_spec("torchrec") is not None and not given.quick:
        engines.append("torchrec")
    found = parity(
        "demo",
        replace(default("demo"), data=data),
        procs=[1, 2] if given.quick else [int(p) for p in given.procs.split(",")],
        steps=5 if given.quick else 50,
        engines=engines,
        html=given.html,
        **(few if given.quick else {}),
    )
    out.print(found)
    row = found.to_dict()
    for each in row["rows"]:
        each.pop("diffs", None)
    append("parity", {"what": "steps", **row}, given.out)
    rows = whole(data, 1 if given.quick else given.seeds)
    print(f"written to {append('parity', {'what': 'trainings', 'data': data, **rows}, given.out)}")
    return found.status


def whole(data: str, seeds: int) -> dict[str, Any]:
    """Return the metrics of whole trainings, and how far their losses are from one process."""
    config = replace(find("demo")(), data=data, precision="fp32", baseline=False, log_every=1)
    dataset, rows = open_data(config), []
    for seed in range(seeds):
        seeded = replace(config, seed=seed, loader=replace(config.loader, seed=seed))
        losses: dict[str, list[float]] = {}
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                run = trained(seeded, dataset, way, Path(folder) / "run")
                losses[way] = [line["loss"] for line in run.metrics() if line["event"] == "train"]
                metrics = (run.evaluation("test") or run.evaluation("validation") or {})["metrics"]
            apart = [abs(a - b) for a, b in zip(losses[way], losses[WAYS[0]], strict=True)]
            row = {
                "seed": seed,
                "way": way,
                "auc": metrics["auc"],
                "log_loss": metrics["log_loss"],
                "steps": len(apart),
                "first_step_off": next((s for s, d in enumerate(apart, 1) if d > 1e-6), None),
                "max_abs_diff": max(apart),
            }
            rows.append(row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return {"batch_size": config.loader.batch_size, "trainings": rows}


def trained(config: TrainConfig, dataset: Dataset, way: str, path: Path) -> Run:
    """Train in one way and return the run, evaluated."""
    if way == "two processes":
        seeds = ["--seed", str(config.seed), "--loader.seed", str(config.loader.seed)]
        words = ["train", "demo", "--data", str(dataset.path), "--run", str(path), *seeds]
        status = launch(2, [*words, "--precision", "fp32", "--no-baseline", "--log-every", "1"])
        if status:
            raise SystemExit(f"the training on two processes ended with {status}")
        return Run.open(path)
    if way == "one process, reordered":
        config = replace(config, model=reordered.config_of(config.model, config.seed))
    trainer = Trainer.create(path, "demo", config, dataset, title=way)
    trainer.evaluate(trainer.fit())
    return trainer.run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
