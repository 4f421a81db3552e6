"""Every benchmark, one after the other: `make bench`.

DLRM_ORIGINAL may name a clone of facebookresearch/dlrm, to measure beside.
"""

import os

import generate
import loading
import peers
import prepare
import training

ORIGINAL = os.environ.get("DLRM_ORIGINAL")

SUITES = {
    "generate": generate.main,
    "prepare": lambda: prepare.main(["--original", ORIGINAL] if ORIGINAL else []),
    "loading": loading.main,
    "training": training.main,
    "peers": peers.main,
}


def main() -> None:
    for name, suite in SUITES.items():
        print(f"== {name}")
        suite()


if __name__ == "__main__":
    main()
