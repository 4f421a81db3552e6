"""Every command and every Python example of the README and the guides runs, on little data."""

import gzip
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from torch.distributed.run import get_args_parser

from bench import machines, tiny
from dlrm.bench import batches, calibrate, speed, step
from dlrm.bench.load import measure
from dlrm.cli import main
from dlrm.compat.dlrm_s_pytorch import main as dlrm_s_pytorch
from dlrm.runtimes import contrast
from recipes import tables

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = ["README.md", "docs/adding.md", *(f"docs/guides/{path.name}" for path in GUIDES)]
LITTLE = "clicks:3000"
LITTLE_STEPS = ["--rounds", "2", "--batch", "8"]


def blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"```(sh|python|toml)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("log") / "log.txt"
    assert main(["data", "generate", "clicks", "--rows", "1500", "--out", str(path)]) == 0
    return path.read_text()


@pytest.fixture
def folder(workdir, log) -> Path:
    """A folder with the files that the documents name."""
    Path("train.txt").write_text(log)
    lines = log.splitlines(keepends=True)
    Path("test.txt").write_text("".join(line[2:] for line in lines[:200]))
    for day in range(3):
        Path(f"day_{day}").write_text("".join(lines[day * 500 : (day + 1) * 500]))
    Path("day_2.gz").write_bytes(gzip.compress(Path("day_2").read_bytes()))
    Path("head72k.tsv.gz").write_bytes(gzip.compress(log.encode()))
    tables.frappe(Path("frappe"))
    tables.amazon(Path("amazon.csv.gz"))
    tables.visits(Path("visits.csv"), Path("tomorrow.csv"))
    return workdir


@pytest.fixture(autouse=True)
def little_benchmarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine measured in no time, and few batches of what runs on it."""
    tiny.measured(monkeypatch, tmp_path / "machines")
    monkeypatch.setattr(calibrate, "calibrate", lambda *_: machines.COSTS)
    monkeypatch.setattr(step, "ROUND_S", 0.0)
    monkeypatch.setattr(batches, "cache_bytes", lambda: 10_000)
    for name in ("TRAIN_S", "EVAL_S", "WARM_S"):
        monkeypatch.setattr(speed, name, 0.01)
    monkeypatch.setattr(speed, "LIMIT_BYTES", 100_000)
    monkeypatch.setattr(contrast, "SHARE_S", 0.0)
    for name in ("FLOOR_S", "PROBE_S"):
        monkeypatch.setattr(measure, name, 0.02)
    monkeypatch.setattr(measure, "CURVE", (0.3, 0.6))
    # All models beside each other, and no pairs: each group starts its servers.
    monkeypatch.setattr(measure, "_groups", lambda names: [list(names)])
    with tiny.speeds_of_a_moment():
        yield


def little(line: str) -> list[str]:
    """Return the words of a command, on little data."""
    words = shlex.split(line, comments=True)
    words = [re.sub(r"^clicks(:\d+)*$", LITTLE, word) if ":" in word else word for word in words]
    for flag, value in (("--rows", "2000"), ("--seeds", "2")):
        if flag in words:
            words[words.index(flag) + 1] = value
    if words[:2] == ["dlrm", "train"] and "--procs" in words:
        # A process less than it says: each takes seconds to start.
        place = words.index("--procs") + 1
        words[place] = str(int(words[place]) - 1)
    if words[1:3] == ["bench", "serve"]:
        # Each pair of a batch size and a delay starts a server: two of the nine.
        words = [re.sub(r"^(\d+,\d+),\d+$", r"\1", word) for word in words]
        words = [re.sub(r"^0,\d+$", "0", word) for word in words]
        words += ["--seconds", "0.05", "--trials", "2"]
    if words[1:3] in (["bench", "train"], ["bench", "infer"]):
        words += [*LITTLE_STEPS, *([] if "--data" in words else ["--rows-scale", "0.0005"])]
    return words


class Servers:
    """The server that a page started last, at a port that is free."""

    def __init__(self):
        self._process: subprocess.Popen[str] | None = None
        self._ports, self._addresses = ["8000"], [""]

    def run(self, words: list[str]) -> None:
        """Run a line about servers."""
        if words[0] == "curl":
            self._call(words)
        else:
            self.stop()
            self._start(words[2:])

    def _start(self, words: list[str]) -> None:
        self._ports = [words[words.index("--port") + 1] if "--port" in words else "8000"]
        command = [sys.executable, "-m", "dlrm", "serve", *words, "--port", "0"]
        if "--grpc-port" in words:
            self._ports.append(words[words.index("--grpc-port") + 1])
            command += ["--grpc-port", "0"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert line.startswith("Serving "), line + self._process.stderr.read()
        self._addresses = re.findall(r" at (?:http://)?([\d.:]+)", line)

    def _call(self, words: list[str]) -> None:
        url = next(word for word in words if word.startswith("localhost:"))
        data = words[words.index("--data") + 1].encode() if "--data" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else None
        request = Request(f"http://{self.moved(url)}", data, method=method)
        with urlopen(request, timeout=30) as response:
            assert response.status == 200

    def moved(self, text: str) -> str:
        """Return a text with the addresses at which the server really is."""
        for port, address in zip(self._ports, self._addresses, strict=True):
            text = text.replace(f"localhost:{port}", address)
        return text

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=30)
            assert self._process.returncode == 0
            self._process = None


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.stop()


def run(line: str) -> None:
    words = little(line)
    match words:
        case ["make", target]:
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()
        case ["pip", "install", *rest]:
            kept = ("constraints.txt", "--no-deps")
            assert any("opendlrm" in word or word in kept for word in rest)
            extra = re.search(r"\[(\w+)\]", line)
            assert extra is None or f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text()
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case ["torchrun", *rest]:
            # What starts the ranks is tested in tests/parallel.
            torchrun = get_args_parser().parse_args(rest)
            assert torchrun.training_script == "dlrm"
            assert main([*torchrun.training_script_args, "--data", LITTLE]) == 0
        case ["dlrm_s_pytorch", *rest]:
            assert dlrm_s_pytorch(rest) == 0
        case ["dlrm", *rest] if ">" in rest:
            with Path(rest[-1]).open("w") as out, redirect_stdout(out):
                assert main(rest[:-2]) == 0
        case ["dlrm", "train" | "compare" as command, first, *rest] if Path(first).is_file():
            assert main([command, first, *rest, "--epochs", "1"]) == 0
        case ["dlrm", "train", "amazon" | "criteo-head" as recipe, *rest]:
            few = ["--epochs", "1", "--ensemble", "2", "--prepare.fractions", "0.8", "0.2", "0"]
            assert main(["train", recipe, *rest, *few]) == 0
        case ["dlrm", "train", *rest] if not any(w in rest for w in ("--data", "--resume")):
            assert main(["train", *rest, "--data", LITTLE]) == 0
        case ["dlrm", "trace", "compare", *_]:
            # So few accesses need not be faithful.
            assert main(words[1:]) in (0, 1)
        case ["dlrm", *rest]:
            assert main(rest) == 0
        case _:
            pytest.fail(f"nobody knows how to check: {line}")


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_says_runs(page, folder, servers, capsys):
    # The examples of a page follow one another.
    names = {"__name__": "example"}
    for language, content in blocks(page):
        if file := re.match(r"# (\w+\.(?:py|toml))\n", content):
            # The block is a file, as its first line says.
            Path(file[1]).write_text(content)
        elif language == "python":
            content = re.sub(r"1_000_000|1_500_000", "2000", content)  # noqa: PLW2901
            exec(compile(servers.moved(content), page, "exec"), names)
        elif language == "sh":
            for line in filter(None, content.splitlines()):
                if line.startswith(("dlrm serve ", "curl ")):
                    servers.run(shlex.split(line))
                else:
                    run(line)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


def test_the_tests_see_the_commands():
    assert sum(len(blocks(page)) for page in PAGES) >= 9
