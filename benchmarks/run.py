"""Every benchmark, one after the other: `make bench`."""

import generate
import prepare

import loading

SUITES = {"generate": generate.main, "prepare": prepare.main, "loading": loading.main}


def main() -> None:
    for name, suite in SUITES.items():
        print(f"== {name}")
        suite()


if __name__ == "__main__":
    main()
