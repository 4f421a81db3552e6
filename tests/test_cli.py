import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dlrm
from dlrm.cli import COMMANDS, main


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert "--json" in out


def test_an_unknown_command_lists_the_choices(capsys):
    assert main(["tarin"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'unknown command "tarin"' in captured.err
    assert all(name in captured.err for name in COMMANDS)


@pytest.mark.parametrize("group", ["bench", "data", "trace"])
def test_a_group_lists_its_commands(group, capsys):
    named = [name for name in COMMANDS if name.startswith(f"{group} ")]
    others = [name for name in COMMANDS if name not in named]
    for words in ([group], [group, "--help"], [group, "-h"]):
        assert main(words) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith(f"usage: dlrm {group} COMMAND ...\n")
        assert captured.err == ""
        for name in named:
            assert f"\n  {name} " in captured.out
            assert COMMANDS[name][1] in captured.out
        assert not any(f"\n  {name} " in captured.out for name in others)
    assert main([group, "nothing"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f'unknown command "{group} nothing"' in captured.err
    assert all(f"\n  {name} " in captured.err for name in named)


def test_errors_are_one_line_without_a_traceback(capsys):
    assert main(["train", "demo", "--data", "no-such-file.txt"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dlrm: error: no-such-file.txt: ")
    assert captured.err.count("\n") == 1


def test_debug_shows_the_traceback():
    with pytest.raises(dlrm.DlrmError):
        main(["train", "demo", "--data", "no-such-file.txt", "--debug"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "demon"], 'unknown recipe "demon"; choose one of: demo, criteo-kaggle'),
        (["train", "--optim.lr", "-1"], "optim.lr is -1.0: it must be positive"),
        (["train", "--resume"], "needs the run directory"),
        (["train", "--resume", "--run", "nowhere"], "nowhere: no such run directory"),
        (["eval", "nowhere"], "nowhere: no such run directory"),
        (["report", "nowhere"], "nowhere"),
        (["data", "describe", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_explained(words, message, capsys):
    assert main(words) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_the_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dlrm {dlrm.__version__}\n"


def test_the_public_names_are_all_there():
    for name in dlrm.__all__:
        assert getattr(dlrm, name) is not None
    assert set(dlrm.__all__) <= set(dir(dlrm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dlrm.nothing


def test_what_is_typed_is_what_is_public():
    source = ast.parse(Path(dlrm.__file__).read_text())
    guarded = next(
        node.body
        for node in source.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.name: node.module
        for node in guarded
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == dlrm._HOME
    assert dlrm.__all__ == ["__version__", *sorted(typed)]


def test_importing_dlrm_imports_nothing_else_and_models_torch_and_numpy_alone():
    code = (
        "import sys, dlrm;"
        "assert not {'torch', 'numpy', 'polars', 'tyro', 'rich'} & set(sys.modules);"
        "dlrm.DLRM, dlrm.LR, dlrm.Batch, dlrm.EmbeddingCollection;"
        "print([m for m in ('polars', 'tyro', 'rich', 'safetensors') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_python_dash_m_is_the_command_line():
    command = [sys.executable, "-m", "dlrm", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("dlrm ")


def test_json_is_the_last_line(workdir, capsys):
    words = ["data", "generate", "clicks", "--rows", "50", "--out", "log.txt", "--json"]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["rows"] == 50


STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["dlrm", "train"]
from dlrm import cli
cli.import_module = lambda name: signal.raise_signal(signal.SIGINT)
from dlrm.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_while_everything_is_imported():
    out = subprocess.run(
        [sys.executable, "-c", STOPPED], capture_output=True, text=True, check=False
    )
    assert (out.returncode, out.stderr) == (130, "dlrm: stopped\n")


def test_who_reads_no_further_than_the_head_of_the_help_sees_no_traceback():
    command = [sys.executable, "-m", "dlrm", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
