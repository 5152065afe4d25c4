"""Names of axes and of columns are kept apart, whatever tables the analysis and the report make."""

import dataclasses

import pandas as pd
import pytest
from pandas.core.generic import NDFrame

from reports import DESIGN, INFO, simulated
from samscale.config import Config
from samscale.study import columns, nuisance, repeated, results, scientific
from samscale.study.analysis import analyse
from samscale.study.report import charts, figures, frames, history, tables
from tiny_study import tiny

AXIS = "an_axis"


def everything(design):
    """All tables of a report whose one nuisance axis is ``AXIS``."""
    cells, curves = simulated(widths=(10, 100, 1000), rhos=(0.05, 0.1), seeds=3, panels=("a", "b"))
    cells = cells.rename(columns={"rho": AXIS})
    cells = cells.assign(memory=1e6, flatness_sharpness=cells["value"], measured="1 example")
    study = frames.Study(cells, analyse(cells, design), design, INFO)
    for draw in figures.CHARTS.values():
        draw(study)
    charts.training(study, curves)
    history.history(study, curves)
    tables.runs(study)
    tables.gains(study)
    frames.at_chosen(study)


def test_every_column_of_every_table_is_reserved(monkeypatch):
    seen, begin = set(), NDFrame.__init__

    def noting(self, data, *args, **kwargs):
        begin(self, data, *args, **kwargs)
        if isinstance(self, pd.DataFrame):
            seen.update(name for name in data.items if isinstance(name, str))

    monkeypatch.setattr(NDFrame, "__init__", noting)
    everything(DESIGN._replace(nuisance=(AXIS,)))
    everything(DESIGN._replace(nuisance=(AXIS,), metric="loss", maximize=False))
    results.cells(tiny(), "nowhere")
    names = {name for name in seen if name.isidentifier()} - {AXIS, "rho", *results_of_runs()}
    assert {"score", "position", "choice"} < names  # those that live for a moment, too
    missing = {name for name in names if not columns.is_column(name, nuisance=True)}
    assert not missing, sorted(missing)


def results_of_runs():
    """Metrics of curves: no table that has them has an axis's column beside them."""
    return {"train_loss", "test_accuracy"}


def test_no_knob_but_the_seed_has_a_reserved_name():
    knobs = [field.name for field in dataclasses.fields(Config)]
    own = [name for name in knobs if not name.startswith("flatness_")]
    assert [name for name in own if columns.is_column(name, nuisance=True)] == ["seed"]


@pytest.mark.parametrize("name", ["value", "seed", "n", "mean", "flatness_trace", "run_id"])
def test_a_nuisance_axis_that_would_hide_a_column_is_refused(name):
    axis = nuisance(name, {"a": {"rho": 0.05}, "b": {"rho": 0.1}}, only=["sam"])
    with pytest.raises(ValueError, match=f"a nuisance axis must not be called '{name}'"):
        tiny(rho=axis, seed=repeated("split_seed", range(2))).validate()


@pytest.mark.parametrize("name", columns.LINE)
def test_no_axis_may_hide_what_a_line_of_the_study_says(name):
    axis = scientific(name, {"a": {}, "b": {"label_noise": 0.1}})
    with pytest.raises(ValueError, match=f"a scientific axis must not be called '{name}'"):
        tiny(panel=axis).validate()


def test_names_of_labels_alone_may_be_those_of_columns():
    sizes = scientific("size", {"small": {"num_neurons": (4,)}, "large": {"num_neurons": (8,)}})
    panel = scientific("value", {"a": {}, "b": {"label_noise": 0.1}})
    table = results.cells(tiny(size=sizes, panel=panel).validate(), "nowhere")
    assert set(table["size"]) == {"small", "large"}
    assert table["value"].isna().all()


@pytest.mark.parametrize("name", ["my axis", "a-b", "class", "1x"])
def test_a_nuisance_axis_is_called_as_a_column_may_be(name):
    axis = nuisance(name, {"a": {"rho": 0.05}, "b": {"rho": 0.1}}, only=["sam"])
    with pytest.raises(ValueError, match=f"'{name}' must be a name of letters, digits and _"):
        tiny(rho=axis).validate()
