"""Runs to serve."""

import os
from pathlib import Path

import pytest

from dlrm.cli import main
from recipes import tables

LITTLE = [
    *("--model.bottom", "8", "--model.top", "8", "--model.dim", "4", "--no-baseline"),
    *("--max-steps", "4"),
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tomorrow.csv and runs: visits, two (labels, and a list), demo."""
    folder = tmp_path_factory.mktemp("serving")
    before = Path.cwd()
    os.chdir(folder)
    try:
        tables.visits(Path("visits.csv"), Path("tomorrow.csv"))
        train = ["train", "visits.csv", "--label", "bought", *LITTLE]
        assert main([*train, "--run", "visits"]) == 0
        lines = [
            f"{k % 5}.5,\"['{'abc'[k % 3]}', '{'xyz'[k % 2]}']\",{k % 2},{int(k % 7 > 3)}"
            for k in range(300)
        ]
        Path("lists.csv").write_text("\n".join(["price,tags,clicked,bought", *lines]))
        train = ["train", "lists.csv", "--label", "clicked", "--label", "bought", *LITTLE]
        assert main([*train, "--run", "two"]) == 0
        assert main(["train", "demo", "--data", "clicks:2000", *LITTLE, "--run", "demo"]) == 0
    finally:
        os.chdir(before)
    return folder
