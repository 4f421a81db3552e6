"""A program that is a rank: it exchanges numbers until something happens. Run by the tests.

usage: child.py FOLDER EVENT RANK
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from dlrm.errors import DlrmError, IdError
from dlrm.parallel.world import World


def main(folder: Path, event: str, victim: int) -> int:
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    try:
        timeout_s = float(os.environ.get("TIMEOUT_S", "60"))
        with World.from_environment(timeout_s=timeout_s, patience_s=2) as world:
            if attempt:
                event = "end"
            (folder / f"process-{world.rank}").write_text(str(os.getpid()))
            for step in range(1_000_000):
                if world.rank == victim and step == 20:
                    happen(event)
                total = world.sum(torch.ones(int(os.environ.get("NUMBERS", "3"))))
                assert (total == world.size).all()
                with (folder / f"steps-{world.rank}").open("a") as steps:
                    steps.write(".")
                if step == 20 and event == "end":
                    return 0
                time.sleep(0.002)
    except DlrmError as error:
        (folder / f"error-{os.environ['RANK']}").write_text(f"{type(error).__name__}: {error}")
        print(f"dlrm: error: {error}", file=sys.stderr)
        return 1
    return 0


def happen(event: str) -> None:
    match event:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "data":
            raise IdError("C3: id 7 is out of range")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
