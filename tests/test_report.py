"""The report of a study, from a simulated one whose gain grows by construction."""

import html
import json
import re

import numpy as np
import pandas as pd
import pytest

from reports import DESIGN, HOSTILE, INFO, built, hostile, simulated
from runs import written
from samscale.study import results
from samscale.study.analysis import Design, analyse
from samscale.study.report import figure, frames, history, vega
from samscale.study.report.figures import FORMATS, KINDS, SAVED


def data(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )


def drawn(page):
    """The rows of the chart of gains."""
    return pd.DataFrame(data(page)["charts"]["gain"]["datasets"]["rows"])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with a failed run, measures of flatness, and its report: (folder, page, cells)."""
    cells, curves = simulated()
    cells.loc[0, ["select", "value"]] = np.nan
    cells.loc[0, ["status", "reason"]] = ["failed", "loss is nan"]
    cells["flatness_trace"] = np.where(cells["method"] == "sam", 1.0, 2.0)
    out = tmp_path_factory.mktemp("report")
    return out, built(out, cells, curves), cells


def test_the_page_loads_nothing_from_anywhere(study):
    _, page, _ = study
    head = page[: page.index('id="data"')]
    links = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", head)
    assert all(re.match(r"figures/\w+\.(svg|png|pdf)$|results\.csv$", link) for link in links)
    assert "@import" not in head
    assert "url(" not in head
    assert "default-src 'none'" in head


def test_question_warnings_and_answer_stand_before_the_charts_in_this_order(study):
    _, page, cells = study
    analysis = analyse(cells, DESIGN)
    first = html.escape(analysis.answer.split(". ")[0])
    words = [INFO["question"], html.escape(analysis.warnings[0]), first, 'class="chart"']
    places = [page.index(f">{word}" if word != words[-1] else word) for word in words]
    assert places == sorted(places)
    assert page.index(INFO["warnings"][0]) < places[2]


def test_every_section_has_its_chart(study):
    charts = {"gain", "absolute", "radius", "heatmap", "training", "cost", "efficiency", "flatness"}
    assert set(data(study[1])["charts"]) == charts
    assert all(f'<div class="chart" id="{name}">' in study[1] for name in charts)


def test_gains_are_shown_in_points_with_every_seed_and_the_paper(study):
    rows = drawn(study[1])
    last = rows[(rows["x"] == 50_000) & (rows["series"] == "sam over sgd")]
    assert last.loc[last["part"] == "mean", "value"].item() == pytest.approx(3, abs=0.2)
    assert (last["part"] == "seed").sum() == 4
    assert rows.loc[rows["part"] == "paper", "value"].tolist() == [0.2, 0.8]
    assert "sam over sgd_2x (equal compute)" in set(rows["series"])


def test_losses_keep_their_unit_and_a_smaller_one_is_a_gain(tmp_path):
    cells, curves = simulated()
    cells[["select", "value"]] = 1 - cells[["select", "value"]]
    design = Design(nuisance=("rho",), metric="loss", maximize=False)
    rows = drawn(built(tmp_path, cells, curves, design, {**INFO, "paper": {}}))
    last = rows[(rows["x"] == 50_000) & (rows["part"] == "mean")]
    assert last["value"].to_numpy() == pytest.approx(0.03, abs=0.002)


def test_the_chosen_radius_is_outlined_once_a_size(study):
    rows = pd.DataFrame(data(study[1])["charts"]["heatmap"]["datasets"]["rows"])
    assert rows.loc[rows["picked"], "radius"].tolist() == [0.1, 0.1, 0.1]
    assert (rows.loc[rows["picked"], "below"] == 0).all()


def test_without_a_validation_split_the_page_says_that_test_data_chose(tmp_path):
    cells, curves = simulated()
    page = built(tmp_path, cells.assign(select=np.nan), curves)
    assert "chosen on the test set" in page
    assert "chosen on validation data" not in page
    assert "gain" in data(page)["charts"]


def test_curves_are_means_over_seeds_at_the_chosen_radius(study):
    rows = pd.DataFrame(data(study[1])["charts"]["training"]["datasets"]["rows"])
    assert len(rows) == 3 * 3 * 5
    assert set(rows["n"]) == {3, 4}  # one run failed
    assert rows.loc[rows["epoch"] == 2, "training loss"].eq(0.5).all()


def test_flatness_measured_while_runs_train_is_among_the_curves(tmp_path):
    cells, curves = simulated()
    last = curves["epoch"] == 5
    curves["flatness_trace"] = np.where(curves["epoch"] == 2, 7.0, np.where(last, 3.0, np.nan))
    curves["flatness_trace_se"] = curves["flatness_a_residual"] = 1.0
    curves["flatness_examples"] = 50.0
    curves["flatness_a"] = np.where(last, 3.0, np.nan)  # measured once: a dot is no curve
    chart = data(built(tmp_path, cells, curves))["charts"]["training"]
    assert chart["facet"]["sort"] == ["training loss", "test accuracy (%)", "trace"]
    rows = chart["datasets"]["rows"]
    assert {"trace" in row for row in rows if row["epoch"] in (1, 3, 4)} == {False}  # a small page
    rows = pd.DataFrame(rows)
    assert rows.groupby("epoch")["trace"].max().dropna().to_dict() == {2: 7.0, 5: 3.0}
    fold, valid = chart["transform"][1:]
    assert "trace" in fold["fold"]
    assert valid == {"filter": "isValid(datum.value)"}  # so that lines go on


def test_a_thinned_curve_keeps_the_epochs_at_which_flatness_was_measured(monkeypatch):
    cells, curves = simulated(widths=(10,), seeds=1)
    epochs = pd.DataFrame({"epoch": range(1, 101)})
    curves = curves[["run_id"]].drop_duplicates().merge(epochs, how="cross")
    curves["train_loss"] = 1 / curves["epoch"]
    curves["flatness_trace"] = np.where(curves["epoch"] % 30 == 7, 1.0, np.nan)
    monkeypatch.setattr(history, "POINTS", 30)
    found = history.history(frames.Study(cells, analyse(cells, DESIGN), DESIGN, INFO), curves)
    assert set(found["epoch"][found["flatness_trace"].notna()]) == {7, 37, 67, 97}
    assert {1, 100} < set(found["epoch"])
    assert found.groupby("series").size().max() <= 14


def test_results_csv_holds_the_cells_as_they_are(study):
    out, _, cells = study
    read = pd.read_csv(out / "results.csv", keep_default_na=False, na_values=[""])
    np.testing.assert_array_equal(read["value"], cells["value"])
    assert list(read["run_id"]) == list(cells["run_id"])


def test_nothing_but_the_results_is_left_in_the_folder(study):
    files = {str(path.relative_to(study[0])) for path in study[0].rglob("*") if path.is_file()}
    figures = {f"figures/{kind}.{suffix}" for kind in SAVED for suffix in FORMATS}
    assert files == {"report.html", "results.csv"} | figures


def test_hostile_text_stays_text(tmp_path):
    page = hostile(tmp_path)
    assert "<script>alert" not in page
    assert "<img" not in page[: page.index('<script type="module">')]
    assert page.count("</script>") == 3
    assert {row[3] for row in data(page)["table"]["rows"]} == {"sgd", "sgd_2x", HOSTILE}


STAGES = {
    "nothing has run": lambda cells: cells.index < 0,
    "one run": lambda cells: cells.index < 1,
    "only the baseline": lambda cells: cells["method"] == "sgd",
    "one seed": lambda cells: cells["seed"] == 0,
    "one size": lambda cells: cells["size"] == "[10]",
    "one of two panels": lambda cells: cells["panel"] == "",
    "other seeds in every method": lambda cells: cells["seed"].eq(0) == cells["method"].eq("sam"),
}


def staged(out, stage, design):
    cells, curves = simulated(widths=(10, 100), seeds=2, panels=("", "label_noise=0.5"))
    cells = cells if design.nuisance else cells[~(cells["rho"] > 0.05)].drop(columns="rho")
    done = STAGES[stage](cells)
    cells.loc[~done, ["select", "value", "x", "num_params", "seconds", "gradients"]] = np.nan
    cells.loc[~done, "status"] = "missing"
    page = built(out, cells, curves[curves["run_id"].isin(cells["run_id"][done])], design)
    assert f"{done.sum()} of {len(cells)} runs finished" in page
    return cells, page


@pytest.mark.parametrize("stage", STAGES)
def test_a_report_can_be_written_at_any_stage(tmp_path, stage):
    staged(tmp_path, stage, DESIGN)


def test_without_a_nuisance_there_is_no_radius_to_draw(tmp_path):
    _, page = staged(tmp_path, "one seed", Design(nuisance=()))
    assert set(data(page)["charts"]) == {"gain", "absolute", "training", "cost", "efficiency"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_of_nothing_says_so(tmp_path, kind):
    cells, _ = staged(tmp_path, "nothing has run", Design(nuisance=()))
    curves = pd.DataFrame(columns=["run_id", "epoch"])
    design, path = Design(nuisance=()), tmp_path / "figure.svg"
    figure(cells, analyse(cells, design), design, INFO, kind, path, curves)
    assert "Nothing to draw yet" in path.read_text()


def test_curves_may_be_absent_altogether(tmp_path):
    page = built(tmp_path, simulated()[0], pd.DataFrame(columns=["run_id", "epoch"]))
    assert "training" not in data(page)["charts"]


def test_curves_are_the_epochs_of_each_run_once(tmp_path):
    """Also where lines of one run have names that those of another lack."""
    lines = {
        "a": [{"kind": "steps", "step": 1, "train_loss": 9.0}],
        "b": [{"kind": "epoch", "step": 2, "epoch": 1, "train_loss": 3.0, "gap": 0.5}],
    }
    lines["a"] += [{"kind": "epoch", "step": 2, "epoch": e, "train_loss": e / 4} for e in (1, 2)]
    for name, rows in lines.items():
        written(tmp_path / name, rows)
        with (tmp_path / name / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "epo')
    curves = results.curves(pd.DataFrame({"run_id": ["a", "b", "a", "not run"]}), tmp_path)
    columns = ["run_id", "epoch", "train_loss", "gap"]
    found = curves.sort_values(["run_id", "epoch"])[columns].astype(object)
    wanted = [["a", 1, 0.25, None], ["a", 2, 0.5, None], ["b", 1, 3.0, 0.5]]
    assert found.where(found.notna(), None).values.tolist() == wanted


def test_the_script_of_the_charts_is_bundled_once_a_machine(tmp_path, monkeypatch):
    made = []
    bundle = lambda: made.append(1) or "let a = '</script>';"
    monkeypatch.setattr("vl_convert.javascript_bundle", bundle)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scripts = [vega.script(), vega.script()]
    assert scripts == ["let a = '<\\/script>';"] * 2
    assert len(made) == 1
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert vega.script() == scripts[0]


NO_BAR, BAR = "without an interval: none is drawn below 3 seeds", "its bar a 95 % interval"


@pytest.mark.parametrize(
    "seeds, told",
    [(2, [NO_BAR]), (3, [BAR + "."]), ("both", [BAR + ", drawn from 3 seeds on"])],
)
def test_words_tell_of_intervals_where_there_are_any(tmp_path, seeds, told):
    cells, curves = simulated(seeds=2 if seeds == 2 else 3)
    if seeds == "both":
        cells = cells[(cells["seed"] < 2) | (cells["x"] > 500)]
    page = built(tmp_path, cells.assign(flatness_trace=cells["value"]), curves)
    notes = re.findall(r'<p class="note">([^<]*)</p>', page)
    notes = [note for note in notes if "interval" in note]
    assert len(notes) == 4  # of gains, methods, radii and flatness
    assert all(words in note for note in notes for words in told)


def test_what_no_run_has_is_no_column_of_the_table(tmp_path):
    cells, curves = simulated(widths=(10,))
    columns = data(built(tmp_path, cells, curves))["table"]["columns"]
    assert not {"panel", "reason", "memory (MB)"} & set(columns)
    cells.loc[0, ["status", "reason", "memory"]] = ["failed", "loss is nan", 1e6]
    columns = data(built(tmp_path, cells, curves))["table"]["columns"]
    assert {"reason", "memory (MB)"} <= set(columns)
