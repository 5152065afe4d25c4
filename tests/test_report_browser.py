"""The report of a study in a browser: charts, tooltips, menus, the table."""

import html
import json
import re
import shutil
import subprocess

import pytest

from reports import HOSTILE, built, hostile, simulated


def data(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )


PROBE = """
<script>
const seen = [];
addEventListener("error", (event) => seen.push(String(event.message)));
addEventListener("unhandledrejection", (event) => seen.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.push(event.violatedDirective));
for (const kind of ["error", "warn"]) console[kind] = (...words) => seen.push(words.join(" "));
alert = (word) => seen.push(`alert ${word}`);
</script>
"""
CLICKS = """
<script type="module">
const $ = (id) => document.getElementById(id), report = {};
const pause = (time) => new Promise((done) => setTimeout(done, time));
const column = (k) => [...$("table").tBodies[0].rows].map((row) => row.cells[k].textContent);
const paths = (chart) => [...chart.querySelectorAll("g[class*=mark-] path")];
const shapes = (id) => paths($(id)).map((path) => path.getAttribute("d")).join();
const type = (text) => {
  $("filter").value = text;
  $("filter").dispatchEvent(new Event("input"));
};
const charts = [...document.querySelectorAll(".chart")];
const ready = () => charts.every((chart) => chart.querySelector("svg"));
for (let i = 0; i < 400 && !ready(); i++) await pause(50);
report.undrawn = charts.filter((chart) => paths(chart).length < 5).map((chart) => chart.id);
report.words = $("gain").textContent;
const middle = (box) => (box.left + box.right) / 2;
const panels = [...$("training").querySelectorAll(".role-scope path.background")];
const above = (title) => panels.map((panel) => panel.getBoundingClientRect()).some((box) =>
  Math.abs(middle(box) - middle(title)) < 20 && Math.abs(title.top - box.bottom) < 50);
const titles = [...$("training").querySelectorAll("text")].filter((t) => t.textContent === "Epoch");
report.titles = titles.length;
report.bare = titles.filter((title) => !above(title.getBoundingClientRect())).length;
const room = document.querySelector("#runs .scroll"), edges = room.getBoundingClientRect();
report.hidden = room.scrollWidth - room.clientWidth;
report.outside = edges.left < 0 || edges.right > innerWidth;
report.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;

const dot = $("gain").querySelector(".mark-symbol.role-mark path");
const box = dot.getBoundingClientRect();
const place = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
for (const kind of ["pointerover", "pointermove", "mouseover", "mousemove"])
  dot.dispatchEvent(new PointerEvent(kind, place));
await pause(200);
report.tip = $("vg-tooltip-element")?.innerText;

const before = shapes("training"), menu = $("training").querySelector("select");
menu.selectedIndex = 0;
menu.dispatchEvent(new Event("input", { bubbles: true }));
menu.dispatchEvent(new Event("change", { bubbles: true }));
await pause(500);
report.redrawn = before !== shapes("training");

const heads = [...$("table").tHead.rows[0].cells];
const test = heads.findIndex((head) => head.textContent === "test (%)");
const click = () => heads[test].querySelector("button").click();
click();
report.rising = column(test);
click();
report.falling = column(test);
report.direction = heads[test].getAttribute("aria-sort");
$("next").click();
report.second = [column(0).length, $("where").textContent];
type("SAM [10]");
report.methods = [...new Set(column(heads.findIndex((head) => head.textContent === "method")))];
report.count = $("count").textContent;
report.seen = seen;
parent.postMessage(JSON.stringify(report), "*");
</script>
"""
OUTER = """
<body><iframe src="probed.html" style="width:{width}px;height:2000px;border:0"></iframe><script>
addEventListener("message", (event) => {{
  const verdict = document.createElement("pre");
  verdict.id = "verdict";
  verdict.textContent = event.data;
  document.body.append(verdict);
}});
</script></body>
"""
chromium = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")


def browsed(out, page, width=1000):
    """What a browser of this width saw, hovered over and clicked on."""
    page = page.replace("<style>", f"{PROBE}<style>", 1) + CLICKS
    (out / "probed.html").write_text(page, encoding="utf-8")
    (out / "outer.html").write_text(OUTER.format(width=width))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", f"--user-data-dir={out / 'profile'}"]
    command += ["--virtual-time-budget=60000", (out / "outer.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    return json.loads(html.unescape(re.search(r'<pre id="verdict">(.*?)</pre>', dom, re.S)[1]))


@chromium
@pytest.mark.parametrize("width", [390, 1000])
def test_a_browser_draws_all_charts_and_the_table_sorts_filters_and_turns_pages(tmp_path, width):
    report = browsed(tmp_path, built(tmp_path, *simulated(seeds=20)), width)
    assert report["seen"] == []
    assert report["undrawn"] == []
    assert report["wide"] <= 0  # nothing to scroll sideways
    assert not report["outside"]
    assert report["titles"] > report["bare"] == 0
    assert "Gain (percentage points)" in report["words"]
    assert "series" in report["tip"]
    assert report["redrawn"]
    rising, falling = ([float(word) for word in report[key]] for key in ("rising", "falling"))
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert report["direction"] == "descending"
    assert len(falling) == 200
    assert falling[0] > rising[-1]
    assert report["second"] == [100, "page 2 of 2"]
    assert report["methods"] == ["sam"]
    assert report["count"] == "60 of 300 runs"


@chromium
def test_a_browser_takes_hostile_text_for_text(tmp_path):
    report = browsed(tmp_path, hostile(tmp_path))
    assert report["seen"] == []
    assert report["undrawn"] == []
    assert HOSTILE[:20] in report["tip"]


@chromium
def test_no_axis_stands_where_the_last_row_has_no_panel_and_a_wide_table_takes_the_window(tmp_path):
    cells, curves = simulated()
    for name in ("validation_loss", "test_loss", "gap"):  # five panels, three in a row
        curves[name] = 2 * curves["train_loss"]
    cells["run_id"] = cells["run_id"] + "-of-a-folder-with-a-long-name"
    curves["run_id"] = curves["run_id"] + "-of-a-folder-with-a-long-name"
    report = browsed(tmp_path, built(tmp_path, cells, curves), 1250)
    assert report["titles"] > report["bare"] == 0
    assert report["hidden"] == 0
    assert report["wide"] <= 0
    assert not report["outside"]
