"""`dlrm serve` as a process: from the command to its end."""

import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from dlrm.cli import main

ROW = b'{"city_id": 3, "device": "phone", "price": 1.5}'


def post(url: str, body: bytes) -> dict:
    with urlopen(Request(url, data=body), timeout=30) as response:
        return json.loads(response.read())


def test_a_signal_ends_it_when_all_that_was_accepted_is_answered(folder: Path):
    words = ["serve", "visits", "--port", "0", "--limits.delay-s", "1.5", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dlrm", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    address = re.fullmatch(r"Serving visits \(version 1\) at (\S+); Ctrl-C ends it\n", line)
    assert address is not None, line
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, f"{address[1]}/score", ROW) for _ in range(8)]
        # All wait for others to share their batch.
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        scores = {answer.result()["score"] for answer in answers}
    assert len(scores) == 1
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    result = json.loads(out)
    assert result["url"] == address[1]
    assert result["models"] == [{"name": "visits", "version": "1", "requests": 8, "rows": 8}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no such run directory"),
        (["a b=visits"], "cannot be the name of a model"),
        (["visits", "--limits.rows", "0"], "expected more than 0"),
        (["visits", "--runtime", "tensorflow"], 'unknown runtime "tensorflow"'),
        (["visits", "--tls-cert", "visits.csv"], "TLS takes both"),
        (["visits", "--token-file", "none"], "no token can be read"),
        (["visits", "--host", "203.0.113.1"], "nothing can listen at 203.0.113.1"),
    ],
)
def test_what_cannot_be_is_said_at_once(folder, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    assert main(["serve", *words]) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("file", ["Dockerfile", "dlrm-serve.service"])
def test_what_deploys_it_calls_commands_that_are(file, folder, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "deploy" / file).read_text()
    if file == "Dockerfile":
        (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
        words = [*json.loads(entry), "none=nothing"]
        assert re.search(r"^USER (?!root)\w+$", text, re.MULTILINE)
        assert "HEALTHCHECK" in text
    else:
        (line,) = re.findall(r"^ExecStart=/opt/dlrm/bin/(.*)$", text, re.MULTILINE)
        words = line.split()
    assert words[:2] == ["dlrm", "serve"]
    monkeypatch.chdir(folder)
    # All of it is understood, up to the run, which is not there.
    assert main(words[1:]) == 1
    assert "no such run directory" in capsys.readouterr().err
