"""The original's training program, run from a clone, with the seconds of its stages.

    python benchmarks/original_program.py CLONE FLAGS...

What it says is printed as it is, and after it a line of JSON.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dlrm.bench.rivals.original import MODULE, load


def run(clone: Path, words: Sequence[str]) -> dict[str, float]:
    """Run the original's training program and return the seconds of its stages.

    Args:
        clone: Of the original.
        words: Its command line.

    """
    module: Any = load(clone)
    seconds = {"prepare_s": 0.0, "data_s": 0.0, "test_s": 0.0}

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        # Whatever arguments it has are its own affair.
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                seconds[stage] += time.perf_counter() - began

        return run

    data = module.dp
    data.data_utils.getCriteoAdData = timed("prepare_s", data.data_utils.getCriteoAdData)
    data.make_criteo_data_and_loaders = timed("data_s", data.make_criteo_data_and_loaders)
    module.inference = timed("test_s", module.inference)
    sys.argv = [f"{MODULE}.py", *words]
    began = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        module.run()
    total_s = time.perf_counter() - began
    return {
        "prepare_s": seconds["prepare_s"],
        "read_s": seconds["data_s"] - seconds["prepare_s"],
        "train_s": total_s - seconds["data_s"] - seconds["test_s"],
        "test_s": seconds["test_s"],
    }


if __name__ == "__main__":
    stages = run(Path(sys.argv[1]), sys.argv[2:])
    print()
    print(json.dumps(stages))
