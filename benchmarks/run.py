"""Every benchmark, one after the other, each in a process of its own: `make bench`.

    python benchmarks/run.py [--only prepare,training] [--quick]

DLRM_ORIGINAL may name a clone of facebookresearch/dlrm, DLRM_BEFORE a work tree of another version
of this project (benchmarks/before_after.py), DLRM_DATA a folder of public tables
(benchmarks/accuracy.py), and PYTHONPATH folders with FBGEMM, DeepCTR-Torch and FuxiCTR
(benchmarks/peers.py and dlrm/bench/rivals/tables.py say how to install them);
what is not there is left out, and that is said. Rows are appended below benchmarks/results/. All
of it takes some 180 minutes on two cores, in which nothing else may run; --quick takes one or two,
says only whether everything works, and keeps nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from dlrm.errors import unknown

ROOT = Path(__file__).parents[1]
SUITES: dict[str, tuple[int, tuple[str, ...]]] = {
    "generate": (1, ("generate.py",)),
    "prepare": (3, ("prepare.py",)),
    "loading": (2, ("loading.py",)),
    "before-after": (6, ("before_after.py",)),
    "training": (23, ("training.py",)),
    "end-to-end": (8, ("end_to_end.py",)),
    "neighbours": (3, ("neighbours.py",)),
    "hardware": (10, ("hardware.py",)),
    "roofline": (1, ("roofline.py",)),
    "peers": (4, ("peers.py",)),
    "peers-adam": (7, ("peers.py", "--optim", "adam")),
    "operators": (5, ("operators.py",)),
    "figure6": (5, ("figure6.py",)),
    "prediction": (4, ("prediction.py",)),
    "predictor": (1, ("predictor.py",)),
    "jax-step": (4, ("jax_step.py",)),
    "runtimes": (10, ("runtimes.py",)),
    "traces": (5, ("traces.py",)),
    "parallel": (6, ("parallel.py",)),
    "parity": (9, ("parity.py",)),
    "plan": (4, ("plan.py",)),
    "simulate": (4, ("simulate.py",)),
    "numerics": (9, ("numerics.py",)),
    "accuracy": (45, ("accuracy.py",)),
    "tables": (12, ("tables.py",)),
    "fuzz": (3, ("fuzz.py",)),
    "serving": (4, ("serving.py",)),
    "reliability": (11, ("reliability.py",)),
}
"""Name -> minutes it takes on two cores, script and its flags."""
PACKAGES = {
    "FBGEMM": "fbgemm_gpu",
    "DeepCTR-Torch": "deepctr_torch",
    "FuxiCTR": "fuxictr",
    "FastAPI": "fastapi",
    "LitServe": "litserve",
}
"""Peer -> what it is imported as."""


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--only", default=",".join(SUITES), help="suites, separated by commas")
    flags.add_argument("--quick", action="store_true", help="does everything work at all?")
    given = flags.parse_args(list(words))
    names = given.only.split(",")
    for name in names:
        if name not in SUITES:
            raise unknown("suite", name, SUITES)
    missing = [peer for peer, package in PACKAGES.items() if find_spec(package) is None]
    if not os.environ.get("DLRM_ORIGINAL"):
        missing.insert(0, "the original (DLRM_ORIGINAL names no clone)")
    for peer in missing:
        print(f"Without {peer}")
    if not given.quick:
        print(f"{len(names)} suites, some {sum(SUITES[name][0] for name in names)} minutes")
    began, failed = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        # Rows of tiny runs are no results.
        quick = ["--quick", "--out", str(Path(folder) / "rows.jsonl")] if given.quick else []
        for name in names:
            minutes, (script, *more) = SUITES[name]
            print(f"== {name}, some {minutes} min" if not quick else f"== {name}", flush=True)
            started = time.perf_counter()
            command = [sys.executable, ROOT / "benchmarks" / script, *more, *quick]
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                failed.append(name)
            print(f"== {name} took {(time.perf_counter() - started) / 60:.1f} min", flush=True)
    print(f"All took {(time.perf_counter() - began) / 60:.1f} min")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
