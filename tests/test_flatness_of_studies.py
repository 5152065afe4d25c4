"""What runs measured, during training or since, in a study's table and report."""

import dataclasses

import pytest

from samscale import cli
from samscale.cli.words import guarded
from samscale.flatness.meanings import ASIDE
from samscale.study import cells, conduct, execute, publish, repeated, results
from samscale.training import files, record
from tiny_study import BASE, tiny

LAYER = "flatness_lambda_1/Dense_0"


def study(**changes):
    base = dataclasses.replace(BASE, **changes)
    found = tiny(seed=repeated("seed", [0]))
    return dataclasses.replace(found, base=base)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study whose runs measured a layer's curvature on 50 examples: (study, workdir)."""
    workdir = tmp_path_factory.mktemp("measured")
    own = study(flatness_every=9, flatness_measures=("layers",), flatness_examples=50)
    conduct.conduct(own, "s", workdir, execute.here())
    return own, workdir


@pytest.fixture
def changed(measured):
    """The same, to write flatness.json into: (study, workdir, folders)."""
    own, workdir = measured
    folders = list(dict.fromkeys(workdir / cell.config.run_id for cell in cells(own)))
    yield own, workdir, folders
    for folder in folders:
        (folder / "flatness.json").unlink(missing_ok=True)


def write(folder, **changes):
    step = record.read(folder)[-1]["step"]
    row = {"step": step, "examples": 50, "seed": 0, "rho": 0.05, "trace": 7.0, "trace_se": 1.0}
    files.write_json(folder / "flatness.json", {**row, **changes})


def warned(own, workdir):
    publish.publish(workdir, "s")
    return "Flatness does not compare" in (workdir / "study-s" / "report.html").read_text()


def test_the_table_has_what_runs_measured_and_how(measured):
    table = results.cells(*measured)
    for row in table.to_dict("records"):
        assert row[LAYER] == record.read(measured[1] / row["run_id"])[-1][LAYER]
    assert set(table["measured"]) == {"50 examples, rho 0.05"}
    assert not [name for name in table if name.endswith(ASIDE)]
    assert not warned(*measured)


def test_what_was_measured_since_in_the_same_way_is_added(changed):
    own, workdir, folders = changed
    for folder in folders:
        write(folder)
    table = results.cells(own, workdir)
    assert set(table["flatness_trace"]) == {7.0}
    assert table[LAYER].notna().all()
    assert not warned(own, workdir)


def test_verdicts_stand_beside_the_methods_that_they_are_not_about(changed):
    """The study trains sam, whose ascent is normalized; without a verdict nothing is said."""
    _, workdir, folders = changed
    words = "Theorem 6.3, and with it the verdict"
    publish.publish(workdir, "s")
    assert words not in (workdir / "study-s" / "report.html").read_text()
    for folder in folders:
        write(folder, stable=1.0)
    publish.publish(workdir, "s")
    page = (workdir / "study-s" / "report.html").read_text()
    assert words in page
    assert "not about sam." in page
    assert "Does flatness predict test accuracy?" in page


@pytest.mark.parametrize("way", [{"examples": 60}, {"rho": 0.1}])
def test_numbers_that_do_not_compare_are_warned_of(changed, way):
    own, workdir, folders = changed
    write(folders[0], **way)
    assert warned(own, workdir)


def test_all_examples_are_as_many_whoever_measured(tmp_path):
    own = study(flatness_every=9, flatness_measures=("layers",), flatness_examples=0)
    conduct.conduct(own, "s", tmp_path, execute.here())
    first = tmp_path / cells(own)[0].config.run_id
    assert cli.main(["samscale", "flatness", str(first), "--measure=features", "--examples=0"]) == 0
    table = results.cells(own, tmp_path)
    assert table["flatness_feature_rank"].notna().any()
    assert table["measured"].nunique() == 1


def test_what_was_measured_in_the_middle_of_a_run_does_not_count(changed):
    own, workdir, folders = changed
    write(folders[0], step=1)
    table = results.cells(own, workdir)
    assert "flatness_trace" not in table
    assert table[LAYER].notna().all()


def test_without_measures_there_is_nothing_to_say(tmp_path):
    plain = study()
    conduct.conduct(plain, "s", tmp_path, execute.here())
    assert not [name for name in results.cells(plain, tmp_path) if "flat" in name]


def test_no_memory_is_a_sentence(capsys):
    def allocate():
        import jax.numpy as jnp

        return jnp.zeros((1 << 40,)).sum()

    assert guarded(allocate) == 1
    assert "not enough memory: take" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="something else"):
        guarded(lambda: (_ for _ in ()).throw(RuntimeError("something else")))
