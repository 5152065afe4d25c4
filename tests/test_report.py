"""The report of a study: whole in one file, told in the right order, alive in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from samscale.study import report
from samscale.study.analysis import Design, analyse

DESIGN = Design(nuisance=("rho",))
HOSTILE = "</script><script>document.title = 'broken'</script> & <b>?"
INFO = {
    "name": "s",
    "question": HOSTILE,
    "paper": {},
    "commands": ["samscale study s.py"],
    "environment": {"python": "3"},
    "base": {"num_epochs": 3},
    "axes": ["seed, repeated: 0, 1, 2"],
    "warnings": [],
}
PROBE = """<script>setTimeout(() => {
  const count = () => document.querySelectorAll("#table tbody tr").length;
  const first = () => document.querySelector("#table tbody tr").cells[column].textContent;
  const buttons = [...document.querySelectorAll("#table thead button")];
  const column = buttons.findIndex((b) => b.textContent === "seed");
  const all = count();
  buttons[column].click(); const low = first();
  buttons[column].click(); const high = first();
  const filter = document.getElementById("filter");
  filter.value = "sgd_2x"; filter.dispatchEvent(new Event("input"));
  const charts = document.querySelectorAll("svg.marks").length;
  document.title = JSON.stringify({all, low, high, left: count(), charts});
}, 3000)</script>"""


def runs(seeds=3):
    """Two sizes, three methods, two radii of sam."""
    noise = np.random.default_rng(0)
    rows = []
    for size, x in (("[4]", 100.0), ("[8]", 1000.0)):
        for method, radii in (("sgd", [np.nan]), ("sgd_2x", [np.nan]), ("sam", [0.05, 0.1])):
            for rho in radii:
                for seed in range(seeds):
                    value = 0.9 + 0.01 * noise.standard_normal()
                    rows.append(
                        {"panel": "", "size": size, "x": x, "method": method, "rho": rho}
                        | {"seed": seed, "select": value, "value": value, "status": "done"}
                        | {"reason": "", "run_id": f"r{len(rows)}", "num_params": x}
                        | {"seconds": 1.0, "gradients": 10.0, "memory": np.nan}
                    )
    return pd.DataFrame(rows)


def curves(cells):
    return pd.DataFrame(
        {"run_id": run_id, "epoch": epoch, "train_loss": 1 / epoch, "gap": 0.1}
        for run_id in cells["run_id"]
        for epoch in (1, 2, 3)
    )


def build(cells, place):
    report.build(cells, curves(cells), analyse(cells, DESIGN), DESIGN, INFO, place)
    return (place / "report.html").read_text()


def test_the_page_is_whole_and_tells_the_answer_and_warnings_before_the_charts(tmp_path):
    cells = runs(seeds=2)
    page = build(cells, tmp_path)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    found = analyse(cells, DESIGN)
    chart = page.index('id="gain')
    assert found.warnings
    assert page.index(found.warnings[0]) < chart
    assert page.index(found.answer.split(": ")[0]) < chart
    assert HOSTILE not in page
    assert len(pd.read_csv(tmp_path / "results.csv")) == len(cells)


@pytest.mark.parametrize("kind", ["gain", "absolute", "radius", "heatmap"])
@pytest.mark.parametrize("suffix, magic", [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_every_figure_comes_in_every_format(tmp_path, kind, suffix, magic):
    cells, path = runs(), tmp_path / f"f.{suffix}"
    report.figure(cells, analyse(cells, DESIGN), DESIGN, INFO, kind, path)
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize("kind, name", [("pie", "f.svg"), ("gain", "f.bmp")])
def test_an_unknown_figure_or_format_is_one_sentence(tmp_path, kind, name):
    cells = runs()
    with pytest.raises(ValueError, match=r"pie|bmp"):
        report.figure(cells, analyse(cells, DESIGN), DESIGN, INFO, kind, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_in_mid_study_there_is_a_page(tmp_path):
    cells = runs(seeds=1)
    cells.loc[3:, ["value", "select", "num_params"]] = np.nan
    cells.loc[3:, "status"] = "missing"
    assert "runs finished" in build(cells, tmp_path)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_in_a_browser_charts_are_drawn_and_the_table_sorts_and_filters(tmp_path):
    page = build(runs(), tmp_path)
    head, end, rest = page.rpartition("</body>")  # the charts' library has such words too
    (tmp_path / "probed.html").write_text(head + PROBE + end + rest)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000"]
    options += ["--dump-dom", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        ["chromium", *options, f"file://{tmp_path / 'probed.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not re.findall(r"ERROR:CONSOLE.*|Uncaught.*|could not be drawn.*", done.stderr)
    (title,) = re.findall(r"<title>(\{.*?\})</title>", done.stdout)
    found = json.loads(title)
    assert found["all"] == 24
    assert (found["low"], found["high"]) == ("0", "2")
    assert found["left"] == 6
    assert found["charts"] >= 5
