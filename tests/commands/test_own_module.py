"""A torch module in the current folder, which knows nothing of ours but the batch, as a model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dlrm
from dlrm.cli import main
from dlrm.errors import ConfigError
from dlrm.models import find
from dlrm.run import Run
from dlrm.training.config import from_dict, to_dict

MODULE = '''
import torch
from torch import nn


class Plain(nn.Module):
    """Embeddings of torch, and an MLP."""

    def __init__(self, schema, dim: int = 4, hidden: tuple[int, ...] = (8,), dropout=0.1):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, dim) for n in schema.num_embeddings)
        width = len(schema.dense) + dim * len(schema.features)
        from {neighbour} import mlp

        self.mlp = mlp([width, *hidden, schema.num_labels], dropout)

    def forward(self, batch):
        vectors = [table(batch.ids[:, t]) for t, table in enumerate(self.tables)]
        return self.mlp(torch.cat([batch.dense, *vectors], dim=1))


class Config:
    pass


class Needy(nn.Module):
    def __init__(self, schema, dim):
        super().__init__()
'''
NEIGHBOUR = """
from torch import nn


def mlp(sizes, dropout):
    layers = [nn.Dropout(dropout)]
    for n, m in zip(sizes, sizes[1:]):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
"""
LITTLE = ["--data", "clicks:2000", "--no-baseline", "--threads", "1", "--loader.batch-size", "64"]


@pytest.fixture
def model(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model whose file and its neighbour lie in the current folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Modules are imported once a process.
    own = f"plain_{abs(hash(workdir)):x}"
    Path(f"{own}.py").write_text(MODULE.replace("{neighbour}", f"{own}_layers"))
    Path(f"{own}_layers.py").write_text(NEIGHBOUR)
    return f"{own}:Plain"


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_command_takes_it(model, capsys):
    words = ["train", "demo", "--model", model, "--model.dim", "3", "--model.hidden", "8", "8"]
    assert main([*words, *LITTLE, "--max-steps", "8", "--checkpoint.every", "3", "--run", "a"]) == 0
    run = Run.open("a")
    config = from_dict(run.config)
    assert json.loads(json.dumps(to_dict(config))) == run.config
    assert (run.config["model"]["name"], run.config["model"]["dim"]) == (model, 3)
    capsys.readouterr()
    for command in (["eval", "a"], ["explain", "a", "--rows", "50"], ["report", "a"]):
        assert main([*command, "--json"]) == 0
    assert main(["data", "generate", "clicks", "--rows", "30", "--out", "raw.txt"]) == 0
    assert main(["predict", "a", "raw.txt", "--out", "scores.csv"]) == 0
    assert len(pl.read_csv("scores.csv")) == 30
    compared = ["compare", "demo", *LITTLE[:2], "--models", f"{model},lr", "--seeds", "1"]
    assert main([*compared, "--rates", "1", "--max-steps", "3", "--run", "c", "--json"]) == 0
    assert {row["model"] for row in said(capsys)["models"]} == {model, "lr"}
    assert main(["compress", "a"]) == 1
    assert "nothing is to compress" in capsys.readouterr().err
    assert main(["embeddings", "a", "--table", "C1"]) == 1
    assert "no vectors of the table C1" in capsys.readouterr().err


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(model, capsys):
    words = ["train", "demo", "--model", model, *LITTLE, "--checkpoint.every", "2", "--run"]
    assert main([*words, "whole", "--max-steps", "6"]) == 0
    assert main([*words, "part", "--max-steps", "6"]) == 0
    steps = sorted(Path("part/checkpoints").glob("step-*"))
    assert len(steps) >= 2
    # What a kill after the first of them would have left.
    shutil.rmtree(steps[-1])
    assert main(["train", "--run", "part", "--resume"]) == 0
    whole, part = (Run.open(run).evaluation("test") for run in ("whole", "part"))
    assert whole == part


def test_from_python_and_in_another_process(model):
    result = dlrm.train("demo", data="clicks:2000", model=model, run="python")
    assert result.evaluations["test"]["model"] == model
    scores = dlrm.evaluate("python").metrics
    assert find(model)() == find(model)()
    environment = {**os.environ, "PYTHONPATH": str(Path(dlrm.__file__).parents[1])}
    command = [sys.executable, "-m", "dlrm", "eval", "python", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1])["auc"] == scores["auc"]
    assert np.isfinite(scores["auc"])


def test_what_is_no_model_is_said(model):
    module = model.partition(":")[0]
    for name in ("Config", "Needy"):
        with pytest.raises(ConfigError, match="arguments behind the schema have defaults"):
            find(f"{module}:{name}")
