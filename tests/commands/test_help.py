"""Help on two screens, and what is said of a flag that is none."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.cli import COMMANDS, main
from dlrm.commands.help import LINES, WIDTH


def run(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    return stop.value.code, capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_two_screens(name, capsys):
    status, captured = run([*name.split(), "--help"], capsys)
    lines = captured.out.splitlines()
    assert status == 0
    assert lines[0].startswith(f"usage: dlrm {name}")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    assert "--json" in captured.out
    # Nothing is lost that is not told of.
    assert (f"dlrm {name} --help-all" in captured.out) == ("\nAll " in captured.out)


@pytest.mark.parametrize("name", ["train", "data prepare", "bench ops"])
def test_help_all_has_every_flag(name, capsys):
    _, short = run([*name.split(), "--help"], capsys)
    status, whole = run([*name.split(), "--help-all"], capsys)
    assert status == 0
    flags = set(re.findall(r"^  (--[\w.-]+)", short.out, re.MULTILINE))
    assert flags
    assert all(flag.replace("--no-", "--") in whole.out for flag in flags)
    assert len(whole.out) > len(short.out)


def test_training_shows_what_people_use(capsys):
    _, captured = run(["train", "--help"], capsys)
    for flag in ("--data", "--label", "--run", "--resume", "--bad-rows", "--epochs", "--optim.lr"):
        assert f"\n  {flag} " in captured.out
    assert "--average.every" not in captured.out


@pytest.mark.parametrize(
    ("name", "typo", "flag"),
    [
        ("train", "--lable", "--label"),
        ("train", "--lr", "--optim.lr"),
        ("train", "--modle", "--model"),
        ("predict", "--bad_row", "--bad-rows"),
        ("data prepare", "--jsno", "--json"),
    ],
)
def test_a_typo_names_the_nearest_flags(name, typo, flag, capsys):
    status, captured = run([*name.split(), typo, "3"], capsys)
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert flag in captured.err.partition("nearest: ")[2].partition(";")[0].split(", ")
    assert captured.err.endswith(f"see dlrm {name} --help\n")


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=3, deadline=None)
@given(typo=st.from_regex(r"--zq[a-z]{0,12}", fullmatch=True))
def test_any_typo_is_one_line_with_three_flags(name, typo):
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("builtins.print", lambda text, **_: said.append(text))
        with pytest.raises(SystemExit):
            main([*name.split(), f"{typo}=1"])
    assert len(said) == 1
    assert said[0].count("--") == 1 + 3 + 1


def test_equal_things_have_equal_names(capsys):
    everywhere = {
        name: run([*name.split(), "--help-all"], capsys)[1].out
        for name in ("train", "data prepare", "data infer", "predict", "plan", "parity")
    }
    tables = ("--label", "--positive", "--task", "--weight", "--category", "--missing")
    reading = ("--bad-rows", "--separator", "--header", "--skip-lines", "--comment")
    for name in ("train", "data prepare", "data infer"):
        assert all(f" {flag} " in everywhere[name] for flag in (*tables, *reading)), name
    assert all(f" {flag} " in everywhere["predict"] for flag in reading)
    assert all(f" {f} " in everywhere["train"] for f in ("--split", "--fractions", "--schema"))
    assert all("--procs " in everywhere[name] for name in ("train", "plan", "parity"))


def test_the_package_of_the_documents_is_this_one():
    root = Path(__file__).parents[2]
    project = (root / "pyproject.toml").read_text()
    (name,) = re.findall(r'^name = "(\w+)"', project, re.MULTILINE)
    for text in (root / "README.md", *root.glob("docs/**/*.md"), *root.glob("src/**/*.py")):
        for package, extra in re.findall(r"pip install '(\w+)\[([\w,]+)\]", text.read_text()):
            assert package == name, text
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), (text, extra)
