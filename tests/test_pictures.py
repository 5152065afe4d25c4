"""Pictures that a study draws of its own runs: sections of the report, files for a paper."""

import dataclasses

import pandas as pd
import pytest

from samscale import cli
from samscale.study import pictures, store
from tiny_study import tiny

DRAWN = "test_pictures:points"


def points(runs, workdir):
    import altair as alt

    assert (workdir / runs["run_id"].iloc[0]).is_dir()
    chart = alt.Chart(runs[["x", "value"]]).mark_point().encode(x="x:Q", y="value:Q")
    return pictures.Picture("My picture", f"Of {len(runs)} runs.", chart)


def broken(runs, workdir):
    raise KeyError("no such column")


def infinite(runs, workdir):
    import altair as alt

    data = alt.Data(values=[{"x": float("inf")}])
    return pictures.Picture("?", "?", alt.Chart(data).mark_point().encode(x="x:Q"))


def bare(runs, workdir):
    return points(runs, workdir).chart


def nothing(runs, workdir):
    return None


def study_file(tmp_path, *names):
    path = tmp_path / "own.py"
    path.write_text(
        "import sys\nsys.path.insert(0, 'tests')\nimport dataclasses\n"
        "from tiny_study import tiny\n\n\ndef get_study():\n"
        f"    return dataclasses.replace(tiny(), pictures={names!r})\n"
    )
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The report of a study with a picture, one that fails, and one with nothing to draw."""
    tmp = tmp_path_factory.mktemp("pictures")
    names = (DRAWN, "test_pictures:broken", "test_pictures:nothing")
    words = ["samscale", "study", str(study_file(tmp, *names)), f"--workdir={tmp}", "--epochs=1"]
    assert cli.main(words) == 0
    return tmp, next(tmp.glob("study-*"))


def test_a_picture_is_a_section_of_the_report_and_a_file_for_a_paper(published):
    page = (published[1] / "report.html").read_text()
    assert "<h2>My picture</h2>" in page
    assert "Of 8 runs." in page  # each method at its chosen radius
    for suffix in ("svg", "png", "pdf"):
        assert (published[1] / "figures" / f"picture-1.{suffix}").stat().st_size > 500
    assert not (published[1] / "figures" / "picture-2.svg").exists()


def test_one_that_fails_is_a_warning_and_costs_nothing_else(published):
    page = (published[1] / "report.html").read_text()
    assert "The picture test_pictures:broken was not drawn: KeyError" in page
    assert page.count("was not drawn") == 1


@pytest.mark.parametrize("name", ["infinite", "bare"])
def test_what_a_page_cannot_hold_is_a_warning(published, name):
    tmp, _ = published
    study = dataclasses.replace(tiny(), pictures=(f"test_pictures:{name}",))
    run_id = next(tmp.glob("*/done")).parent.name
    runs = pd.DataFrame({"run_id": [run_id], "x": [1.0], "value": [1.0]})
    drawn, (warning,) = pictures.drawn(study, runs, tmp)
    assert not drawn
    assert f"test_pictures:{name} was not drawn" in warning


def test_their_names_are_kept_with_the_study(published):
    study, _ = store.load(published[0], published[1].name.removeprefix(store.PREFIX))
    assert study.pictures[0] == DRAWN


def test_a_name_that_stands_for_nothing_is_refused_before_anything_runs(tmp_path, capsys):
    path = study_file(tmp_path, "test_pictures:absent")
    assert cli.main(["samscale", "study", str(path), f"--workdir={tmp_path / 'runs'}"]) == 2
    assert "pictures='test_pictures:absent': must be module:function" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_no_run_no_picture(tmp_path):
    study = dataclasses.replace(tiny(), pictures=(DRAWN,))
    assert pictures.drawn(study, [], tmp_path) == ([], [])
