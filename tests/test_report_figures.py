"""Figures for papers and the marks of charts: sizes, axes, digits, words."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from reports import DESIGN, INFO, built, simulated
from samscale.study.analysis import Design, analyse
from samscale.study.report import charts, figure, frames
from samscale.study.report.figures import FORMATS, KINDS

MAGIC = {"svg": b"<svg ", "png": b"\x89PNG\r\n", "pdf": b"%PDF-"}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_one_column_of_a_paper_wide(tmp_path, kind, suffix):
    cells, curves = simulated(panels=("", "label_noise=0.5"))
    path = tmp_path / f"figure.{suffix}"
    figure(cells, analyse(cells, DESIGN), DESIGN, INFO, kind, path, curves)
    content = path.read_bytes()
    assert content.startswith(MAGIC[suffix])
    if suffix == "svg":
        assert b'width="234pt"' in content
        sizes = [float(size) for size in re.findall(rb'font-size="([\d.]+)px"', content)]
        assert min(sizes) * 234 / 312 >= 7
    if suffix == "pdf":
        assert b"/MediaBox [0 0 234 " in content
    if suffix == "png":  # at 300 dots per inch
        assert int.from_bytes(content[16:20]) == 975


def test_unknown_kinds_and_formats_are_named(tmp_path):
    cells, _ = simulated()
    found = cells, analyse(cells, DESIGN), DESIGN, INFO
    with pytest.raises(ValueError, match=r"^kind='pie': choose one of absolute, cost, "):
        figure(*found, "pie", tmp_path / "a.svg")
    with pytest.raises(ValueError, match=r"^path='.*a\.jpg': the suffix must be one of pdf, "):
        figure(*found, "gain", tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_several_nuisances_are_told_in_words_and_the_best_of_the_others_is_drawn(tmp_path):
    cells, curves = simulated(widths=(10, 100))
    worse = cells.assign(value=cells["value"] - 0.05, select=cells["select"] - 0.05)
    worse["run_id"] += "-slow"
    cells = pd.concat([cells.assign(learning_rate=0.1), worse.assign(learning_rate=0.01)])
    cells = cells.reset_index(drop=True)
    design = Design(nuisance=("rho", "learning_rate"))
    page = built(tmp_path, cells, curves, design)
    assert "The best rho and learning_rate was chosen" not in page
    assert "The best rho and learning_rate were chosen" in page
    best = frames.heatmap(frames.Study(cells, analyse(cells, design), design, INFO))
    assert best["value"].min() > 88


@pytest.mark.parametrize("scale, kind", [(1.0, ".3~s"), (1e-6, ".3~g")])
def test_small_numbers_have_no_thousandths_on_their_axis(scale, kind):
    """0.772, not 772m; but 61k, not 61000."""
    cells, _ = simulated()
    cells = cells.assign(x=cells["x"] * scale)
    chart = charts.gain(frames.Study(cells, analyse(cells, DESIGN), DESIGN, INFO))
    assert f'"format": "{kind}"' in json.dumps(chart)


def svg_of(cells, kind, path, design=DESIGN):
    info = {**INFO, "paper": {}}
    figure(cells, analyse(cells, design), design, info, kind, path)
    return path.read_text()


@pytest.mark.parametrize("log_x", [True, False])
@pytest.mark.parametrize("kind", ["gain", "absolute", "flatness", "cost"])
def test_all_points_of_a_lone_size_stand_together_in_the_middle(tmp_path, kind, log_x):
    cells, _ = simulated(widths=(10,))
    cells["flatness_trace"] = 1 + cells["value"]
    svg = svg_of(cells, kind, tmp_path / "a.svg", Design(("rho",), log_x=log_x))
    points = re.findall(r'aria-roledescription="point" transform="translate\(([\d.]+),', svg)
    width = max(map(float, re.findall(r'class="background"[^>]*d="M[^h]*h([\d.]+)', svg)))
    places = np.array(points, float) / width
    assert len(places) > 2
    assert np.ptp(places) < 0.15
    assert places.mean() == pytest.approx(0.5, abs=0.05)


def test_an_axis_labels_a_lone_value_with_its_digits(tmp_path):
    cells, _ = simulated(widths=(10,), seeds=1)
    cells = cells[cells["method"] == "sgd"].assign(flatness_trace=0.0214, flatness_a=1.76)
    svg = svg_of(cells, "flatness", tmp_path / "a.svg")
    assert {"0.0214", "1.76"} <= set(re.findall(r">([\d.]+)</text>", svg))
