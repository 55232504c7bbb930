"""The HTML report in a real browser: it sorts, and it loads nothing."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from ranksaga.compare.comparison import compare
from ranksaga.evaluate.evaluation import Evaluation
from ranksaga.report.data import ReportData
from ranksaga.report.html import html_text

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
# Runs last in the page: sorts the results twice by value and notes down what the page did.
PROBE = """<script>
const violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.blockedURI));
const table = document.querySelector("#results table");
const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === "change");
const heading = table.tHead.rows[0].cells[column];
const shown = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
const orders = [];
for (let press = 0; press < 2; press++) {
  heading.querySelector("button").click();
  orders.push([heading.getAttribute("aria-sort"), ...shown()]);
}
addEventListener("load", () => {
  const found = {
    orders, violations,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    charts: [...document.querySelectorAll("figure svg")].map((svg) => svg.getBoundingClientRect().height > 100),
  };
  const note = document.createElement("pre");
  note.id = "probe";
  note.textContent = JSON.stringify(found);
  document.body.append(note);
});
</script>"""


def _report() -> str:
    ids = tuple(f"q{row}" for row in range(20))
    levels = {"alpha": (0.25, 0.5), "beta": (0.5, 0.25), "gamma": (0.5, 0.5625)}
    measured = [
        Evaluation(name, "test", system, ids, {"ndcg_at_10": np.full(20, level)})
        for name, pair in levels.items()
        for system, level in zip(("baseline", "best"), pair, strict=True)
    ]
    comparison = compare(measured[0::2], measured[1::2], rounds=99)
    return html_text(ReportData("A report", comparison, headline="best", shipped="best"))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_works_alone(tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(_report().replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [
        *(str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"),
        *("--dump-dom", page.as_uri()),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="probe">(.*?)</pre>', shown)
    assert match is not None
    found = json.loads(unescape(match[1]))
    assert found["orders"] == [
        # Rows without a figure, the baselines, stay last either way.
        ["descending", "+0.2500", "+0.0625", "-0.2500", "–", "–", "–"],
        ["ascending", "-0.2500", "+0.0625", "+0.2500", "–", "–", "–"],
    ]
    assert found["requests"] == []
    assert found["violations"] == []
    assert found["wide"] is False
    assert found["charts"] == [True, True]
