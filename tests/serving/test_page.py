"""The page of the server, in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from served import serving

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ROW = {"city_id": 3, "device": "phone", "price": 1.5}


def shown(url: str, profile: Path) -> str:
    """Return what a page has become in a browser, having seen that its console is empty."""
    flags = ("headless", "no-sandbox", "disable-gpu", "disable-background-networking")
    words = [*(f"--{flag}" for flag in flags), f"--user-data-dir={profile}", "--no-first-run"]
    words += ["--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", url]
    done = subprocess.run(
        [str(CHROMIUM), *words], check=True, capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def test_the_page_asks_for_nothing_from_elsewhere_and_for_no_token(folder):
    with serving(folder / "visits", token="secret") as served:
        status, body = served.call("GET", "/")
    text = body.decode()
    assert status == 200
    assert "visits" not in text
    assert not re.search(r"https?://|src=|@import|innerHTML", text)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_row_is_scored_in_a_browser(folder, tmp_path):
    with serving(folder / "visits") as served:
        _, answer = served.json("POST", "/score", ROW)
        _, without = served.json("POST", "/score", {**ROW, "price": None})
        url = f"{served.server.url}/#{quote(json.dumps(ROW))}"
        page = shown(url, tmp_path / "profile")
        _, counts = served.json("GET", "/v2/models/visits/stats")
    assert re.search(r"<td>visits</td><td>1</td><td>\d+</td>", page)
    (score,) = re.findall(r"Score: ([\d.e-]+)", page)
    assert float(score) == pytest.approx(answer["score"], rel=1e-3)
    moved = dict(re.findall(r"<tr><td>(\w+)</td><td>([\d.e-]+)</td><td>[\d.e-]+</td></tr>", page))
    assert set(moved) == set(ROW)
    assert float(moved["price"]) == pytest.approx(without["score"], rel=1e-3)
    assert counts["model_stats"][0]["inference_stats"]["success"]["count"] >= 3
