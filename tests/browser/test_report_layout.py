"""The report at the widths of a desk and of a phone, light, dark and on paper: nothing is cut off, no label covers
another, and axe finds nothing."""

from __future__ import annotations

import json
import re
import subprocess
from html import escape, unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ranksaga.report.data import ReportData
from ranksaga.report.html import html_text

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=20000",
        "--window-size=1600,1200",
        "--hide-scrollbars",
    ),
)
DARK = "--blink-settings=preferredColorScheme=0"
PAPER = 718  # A4 at 96 dots an inch, less a margin of 1 cm on each side
# What is shown, by how it is shown: width in pixels, flags, and whether the rules for paper hold.
WAYS: dict[str, tuple[int, tuple[str, ...], bool]] = {
    "desk, light": (1440, (), False),
    "desk, dark": (1440, (DARK,), False),
    "phone, light": (390, (), False),
    "phone, dark": (390, (DARK,), False),
    "paper": (PAPER, (), True),
}
PROBE = """<script>
const crossing = (one, other) =>
  Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1 &&
  Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 1;
addEventListener("load", async () => {
  // Of the many single queries two, or axe would take minutes.
  const many = [...document.querySelectorAll("#queries-list details")].slice(2);
  many.forEach((part) => part.remove());
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  await new Promise((done) => setTimeout(done, 500));  // what is opened is filled then
  const width = document.documentElement.clientWidth;
  const cut = [...document.querySelectorAll("td, th, svg, p, li, h1, h2, h3, pre, button, input, select")]
    .filter((part) => part.getClientRects().length)
    .filter((part) => part.getBoundingClientRect().right > width + 1 || part.scrollWidth > part.clientWidth + 1)
    .filter((part) => !["svg", "PRE"].includes(part.tagName) || part.getBoundingClientRect().right > width + 1)
    .map((part) => `${part.tagName} ${part.textContent.slice(0, 40)}`);
  const covered = [];
  for (const svg of document.querySelectorAll("figure svg")) {
    const labels = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    labels.forEach(([name, box], place) => labels.slice(place + 1).forEach(([other, second]) => {
      if (name.trim() && other.trim() && crossing(box, second)) covered.push(`${name} / ${other}`);
    }));
    const whole = svg.getBoundingClientRect();
    labels.forEach(([name, box]) => {
      if (box.left < whole.left - 1 || box.right > whole.right + 1) covered.push(`${name} leaves the chart`);
    });
  }
  const violations = typeof axe === "undefined" ? null : (await axe.run(document)).violations
    .map((one) => `${one.id} (${one.impact}): ${one.nodes[0].html.slice(0, 120)} ${one.nodes[0].failureSummary}`);
  const unnamed = [...document.querySelectorAll("button")].filter((one) => !one.textContent.trim()).length;
  const empty = [...document.querySelectorAll("table")].filter((one) => !one.tBodies[0].rows.length).length;
  const background = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(JSON.stringify(
    {width, wide: document.documentElement.scrollWidth, cut, covered, violations, unnamed, empty, background}), "*");
});
</script>"""
OUTER = """<!doctype html><body style="margin:0"><script>
addEventListener("message", (event) => {
  const note = document.createElement("pre");
  note.id = "probe";
  note.textContent = event.data;
  document.body.append(note);
});
</script><iframe style="border:0;width:%dpx;height:1100px" srcdoc="%s"></iframe>"""


def axe() -> str:
    """The source of axe-core, from the package axe-core-python; nothing where it is not installed."""
    spec = find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        return ""
    source = (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    return f"<script>{source.replace('</script', '<' + chr(92) + '/script')}</script>"


@pytest.fixture(scope="module")
def page(odd_report: ReportData) -> str:
    return html_text(odd_report)


def probed(page: str, folder: Path, way: str) -> dict[str, Any]:
    width, flags, paper = WAYS[way]
    source = page.replace("@media print {", "@media all {") if paper else page
    source = source.replace("</body>", f"{axe()}{PROBE}</body>")
    file = folder / "outer.html"
    file.write_text(OUTER % (width, escape(source)), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    match = re.search(r'<pre id="probe">(.*?)</pre>', shown, re.DOTALL)
    assert match is not None
    return json.loads(unescape(match[1]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_cut_off_covered_or_unnamed(way: str, page: str, tmp_path: Path) -> None:
    found = probed(page, tmp_path, way)
    assert found["width"] == WAYS[way][0]
    assert found["wide"] <= found["width"]
    assert found["cut"] == []
    assert found["covered"] == []
    assert (found["unnamed"], found["empty"]) == (0, 0)
    paper = {"paper": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}.get(way.split(", ")[-1], "rgb(254, 254, 254)")
    assert found["background"] == paper
    if found["violations"] is None:
        pytest.skip("axe-core-python is not installed: the rest was checked")
    assert found["violations"] == []
