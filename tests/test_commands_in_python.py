"""Every command is a typed function of the package, and returns what the command prints."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import dlrm
from bench import machines, tiny
from dlrm.bench import batches, step
from dlrm.cli import COMMANDS
from dlrm.errors import DlrmError

OTHER_NAMES = {"eval": "evaluate", "data fit": "fit_log", "runtimes": "compare_runtimes"}


def python_name(command: str) -> str:
    """Return the name of a command's function: `data prepare` is `prepare`."""
    return OTHER_NAMES.get(command, command.removeprefix("data ").replace(" ", "_"))


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_a_typed_function_with_the_result_of_the_command(command):
    name = python_name(command)
    assert name in dlrm.__all__
    function = getattr(dlrm, name)
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    assert set(parameters) | {"return"} == set(hints), "each argument has a type"
    documented = function.__doc__ or ""
    for parameter in parameters:
        assert f"{parameter}: " in documented
    module, _, attribute = COMMANDS[command][0].partition(":")
    printed = get_type_hints(getattr(import_module(f"dlrm.commands.{module}"), attribute))["return"]
    assert hints["return"] in (printed, *get_args(printed))
    assert hasattr(hints["return"], "to_dict")


def test_plans_and_steps_run_from_python(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    plan = dlrm.plan(rows="10k,300", samples=1000, model="fm", measure=False, procs=2)
    assert plan.to_dict()["world"] == 2
    assert dlrm.plan(procs=8, device_memory="80GB", measure=False).name.endswith("criteo-terabyte")
    tiny.measured(monkeypatch, workdir / "machines")
    monkeypatch.setattr("dlrm.bench.calibrate.calibrate", lambda *_: machines.COSTS)
    monkeypatch.setattr(step, "ROUND_S", 0.0)
    monkeypatch.setattr(batches, "cache_bytes", lambda: 10_000)
    little = {"rows_scale": 0.0005, "rounds": 2, "batch": "8"}
    assert dlrm.bench_train(**little).train
    assert not dlrm.bench_infer(**little).train
    with pytest.raises(DlrmError, match='unknown experiment "figure4"'):
        dlrm.experiment("figure4")
    with pytest.raises(DlrmError, match="at least one seed"):
        dlrm.experiment(seeds=0)


def test_comparing_takes_data_of_ones_own(workdir: Path):
    lines = [f"c{k % 7},{k},{k % 2}" for k in range(200)]
    Path("visits.csv").write_text("\n".join(["city,day,bought", *lines]))
    compared = dlrm.compare("visits.csv", label="bought", models=["lr"], seeds=1, rates=[1.0])
    assert [candidate.name for candidate in compared.comparison.candidates] == ["lr"]
