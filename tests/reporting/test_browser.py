"""The page as a browser shows it: no complaint on its console, and nothing in another's way."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dlrm.reporting import write

from .runs import evaluation, events, features, write_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)

PROBE = """
const found = { scheme: getComputedStyle(document.body).backgroundColor };
found.wide = document.documentElement.scrollWidth - innerWidth;
found.buttons = document.querySelectorAll("table.sort thead button").length;
found.overlaps = [];
for (const drawing of document.querySelectorAll(".drawing svg")) {
  const texts = [...drawing.querySelectorAll("text")].map((t) => [t, t.getBoundingClientRect()]);
  texts.forEach(([a, p], at) => texts.slice(at + 1).forEach(([b, q]) => {
    // A box is as high as the font's highest letters; digits leave a fifth free on either side
    const free = 0.2 * (p.height + q.height);
    const beside = p.right <= q.left || q.right <= p.left;
    const apart = beside || p.bottom - free <= q.top || q.bottom - free <= p.top;
    if (!apart) found.overlaps.push(a.textContent + " | " + b.textContent);
  }));
}
const heads = document.querySelectorAll("table.sort thead button");
const names = () => [...document.querySelectorAll("table.sort tbody th")].map((c) => c.textContent);
heads[0].click(); found.first = names().slice(0, 2);
heads[0].click(); found.last = names().slice(0, 2);
document.getElementById("theme").click();
found.toggled = getComputedStyle(document.body).backgroundColor;
document.body.dataset.found = JSON.stringify(found);
"""


def look(tmp_path: Path, *, dark: bool, width: int, **options: Any) -> dict[str, Any]:
    """Return what the probe found in a page, having seen that the console is empty."""
    assert CHROMIUM is not None
    file = write(write_run(tmp_path / "run", **options))
    text = file.read_text(encoding="utf-8")
    # The probe is not the page's own script, which alone the page's policy lets run
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    probed = file.with_name("probed.html")
    probed.write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    seen = [_open(tmp_path, place, dark=dark, width=width) for place in (file, probed)]
    return json.loads(unescape(re.findall(r'data-found="([^"]*)"', seen[1])[0]))


def _open(tmp_path: Path, file: Path, *, dark: bool, width: int) -> str:
    shown = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},1400",
            "--dump-dom",
            file.as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in shown.stderr, shown.stderr
    return shown.stdout


WHITE, BLACK = "rgb(255, 255, 255)", "rgb(20, 23, 28)"


@pytest.mark.parametrize(("dark", "width"), [(False, 1240), (True, 390)])
def test_a_page_in_a_browser(tmp_path: Path, dark: bool, width: int) -> None:
    found = look(tmp_path, dark=dark, width=width, final=evaluation())
    assert found["scheme"] == (BLACK if dark else WHITE)
    assert found["toggled"] == (WHITE if dark else BLACK)
    assert found["wide"] <= 0
    assert found["buttons"] == 5
    assert found["overlaps"] == []
    assert found["first"] == ["I1", "I2"]
    assert found["last"] == ["C26", "C25"]


def test_labels_do_not_overlap_where_numbers_are_long(tmp_path: Path) -> None:
    log = events(3_000_000, 10_000, 300_000)
    for event in log:
        event["samples_per_s"] = event.get("samples_per_s", 0) * 12_345
        if "loss" in event:
            event["loss"] = event["loss"] * 123_456
    columns = features(40, 60)
    columns[0]["name"] = "a_name_" * 30
    found = look(
        tmp_path,
        dark=False,
        width=390,
        log=log,
        final=evaluation(),
        columns=columns,
        recipe="x" * 90,
    )
    assert found["overlaps"] == []
    assert found["wide"] <= 0
