"""The page of benchmarks in a browser: sliders predict what the formula says."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from dlrm.planning.what_if import WhatIf, read
from dlrm.reporting.bench import write

from . import benchmarks
from .test_browser import CHROMIUM, PROBE, _open

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)

CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"cores": 8},
    {"bandwidth": 2.0, "latency": 0.5},
    {"cache": 0.25, "precision": "bf16", "flops": 1.5},
    {"cores": 1, "bandwidth": 0.5, "latency": 2.0, "cache": 16.0, "rows": "bf16"},
    {"cores": 128, "precision": "int8", "rows": "int8"},
)

MOVE = """
const form = document.getElementById("what-if");
const found = { ms: [], flags: [] };
const said = () => Number(document.getElementById("predicted").dataset.ms);
for (let step = 0; step < form.elements.step.options.length; step++) {
  for (const change of CHANGES) {
    form.elements.step.value = step;
    form.elements.step.dispatchEvent(new Event("input", { bubbles: true }));
    for (const [name, value] of Object.entries(change)) {
      const input = form.elements[name];
      input.value = input.dataset.choices
        ? input.dataset.choices.split(" ").map(Number).indexOf(value)
        : value;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    }
    found.ms.push(said());
    found.flags.push(document.querySelector("#predicted code").textContent);
  }
}
found.text = document.getElementById("predicted").textContent;
form.querySelector("button").click();
found.reset = said();
found.hidden = document.getElementById("sliders").hidden;
found.wide = document.documentElement.scrollWidth - innerWidth;
window.Blob = class { constructor(lines) { found.rows = lines.map(JSON.parse); } };
URL.createObjectURL = () => "#";
document.getElementById("save").click();
"""


def probed(file: Path, script: str) -> Path:
    """Return the page with another script, which its policy would not let run."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", file.read_text("utf-8"))
    other = file.with_name("probed.html")
    other.write_text(text.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    return other


def test_sliders_predict_what_the_formula_says(tmp_path: Path):
    rows = [benchmarks.machine(), benchmarks.step("train", 2048), benchmarks.step("infer", 128)]
    file = write(tmp_path / "bench.html", rows)
    # As it is, under its policy: the console is empty and the sliders are there.
    shown = _open(tmp_path, file, dark=False, width=1240)
    assert re.search(r'<div id="sliders">', shown)
    script = MOVE.replace("CHANGES", json.dumps(CHANGES))
    script += "document.body.dataset.found = JSON.stringify(found);"
    seen = _open(tmp_path, probed(file, f"{{{script}}}"), dark=False, width=390)
    found = json.loads(unescape(re.findall(r'data-found="([^"]*)"', seen)[0]))
    each = [(row, change) for row in rows[1:] for change in CHANGES]
    due = [
        WhatIf(**{**change, "cores": change.get("cores", 2) / 2}).step_ms(row)
        for row, change in each
    ]
    assert found["ms"] == pytest.approx(due, rel=1e-9)
    # The flag that the page names asks dlrm bench the same.
    for said, ms, (row, _) in zip(found["flags"], due, each, strict=True):
        text = said.removeprefix("--what-if ")
        asked = read(text, cores=2, copy=41e9, cache_bytes=32 << 20) if text else WhatIf()
        assert asked.step_ms(row) == pytest.approx(ms, rel=1e-9)
    assert found["reset"] == pytest.approx(rows[2]["step_ms"], rel=1e-9)
    assert found["hidden"] is False
    assert found["wide"] <= 0
    assert "off by 9.0% in the median; on this step as it is, by 7.0%." in found["text"]
    assert found["rows"] == rows


def test_labels_do_not_overlap(tmp_path: Path):
    file = write(tmp_path / "bench.html", benchmarks.every())
    script = PROBE.replace('document.querySelectorAll("table.sort thead button")', "[]")
    script = "\n".join(line for line in script.splitlines() if "heads[0]" not in line)
    seen = _open(tmp_path, probed(file, script), dark=True, width=390)
    found = json.loads(unescape(re.findall(r'data-found="([^"]*)"', seen)[0]))
    assert found["overlaps"] == []
    assert found["wide"] <= 0
