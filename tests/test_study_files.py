"""Study files: every field, axis and fault is checked with one sentence, before anything runs."""

import dataclasses
import fractions
import json

import numpy as np
import pytest

from samscale import cli
from samscale.config import Config
from samscale.study import (
    Axis,
    Study,
    cells,
    methods,
    nuisance,
    published,
    repeated,
    scientific,
    store,
)
from tiny_study import BASE, FILE, tiny

RADII = {"a": {"rho": 0.05}, "b": {"rho": 0.1}}


def refused(study_of, *words):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is what is tested
        study_of().validate()
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


JUNK = [3, None, b"x", {"a": 1}, (3,), object(), np.float32(1), "my:"]
FIELDS = [field.name for field in dataclasses.fields(Study)]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_wrong_type_is_named_with_its_value(field):
    for value in JUNK:
        if isinstance(value, str) and field in ("question", "metric", "value", "select"):
            continue  # whether runs have such a number only their program tells
        refused(lambda: dataclasses.replace(tiny(), **{field: value}), field)  # noqa: B023


@pytest.mark.parametrize("name", Axis._fields)
def test_a_part_of_an_axis_that_is_none_is_named(name):
    axis = nuisance("rho", [0.05, 0.1], only=["sam"])
    for value in [*JUNK, "", "a b", {"a": {3: 4}}, {"a": None}]:
        refused(lambda: tiny(rho=axis._replace(**{name: value})))  # noqa: B023


@pytest.mark.parametrize(
    "values", [3, None, "abc", {0.1, 0.2}, [0.1, 0.1], [0.1, np.float32(0.1)], range(10**12)]
)
def test_values_of_an_axis_are_several_in_an_order(values):
    with pytest.raises(ValueError, match=r"^rho[:=]"):
        nuisance("rho", values)


def test_names_are_reported_whole():
    with pytest.raises(ValueError, match=r"^only='sam': must be names of methods"):
        nuisance("rho", [0.1], only="sam")
    refused(lambda: dataclasses.replace(tiny(), pictures="my:pic"), "pictures='my:pic': must be")


@pytest.mark.parametrize(
    "paper",
    [
        {"gain": 3},
        {"gain": [3]},
        {"gain": [(1, 2)]},
        {"gain": [(1, "a", None)]},
        {"gain": [(1, 2, "a")]},
        {"gain": [(1, float("nan"), None)]},
        {"panel=a": {"gain": None}},
        {"panel=a": {"panel=b": {"gain": []}}},
        {"source": 3},
        {3: []},
    ],
    ids=str,
)
def test_rows_of_a_paper_are_looked_at_before_anything_runs(paper):
    refused(lambda: dataclasses.replace(tiny(), paper=paper), "paper: ")


def test_papers_are_what_published_gives_for_one_panel_or_for_each():
    rows = published(np.arange(2), "A paper", gain=np.float32([0.1, 0.2]), sgd=((1, 2), (3, 4)))
    assert rows["gain"] == [(0, 0.1, None), (1, 0.2, None)]
    for paper in (rows, {"panel=a": rows, "source": "A paper"}):
        study = dataclasses.replace(tiny(), paper=paper).validate()
        assert json.loads(json.dumps(study.paper))


def lengths(study, axis):
    found = [cell for cell in cells(study.validate()) if cell.labels["method"] == "sgd_2x"]
    return {
        (cell.labels[axis], cell.config.num_epochs, cell.config.num_train_steps) for cell in found
    }


@pytest.mark.parametrize("make", [scientific, repeated], ids=["scientific", "repeated"])
def test_twice_as_long_is_twice_as_long_as_the_cell(make):
    method = methods(BASE, "sgd", "sgd_2x", "sam")
    study = tiny(method=method, epochs=make("num_epochs", [1, 4]))
    assert lengths(study, "num_epochs") == {("1", 2, -1), ("4", 8, -1)}
    sizes = {"a": {"num_neurons": (4,), "num_epochs": 3}, "b": {"num_neurons": (8,)}}
    assert lengths(tiny(method=method, size=scientific("size", sizes)), "size") == {
        ("a", 6, -1),
        ("b", 4, -1),
    }
    steps = tiny(method=method, steps=nuisance("num_train_steps", [4, 8]))
    assert lengths(steps, "num_train_steps") == {("4", 2, 8), ("8", 2, 16)}


def test_factors_of_length_multiply():
    longer = scientific("longer", {"once": {}, "thrice": {"length_factor": 3}})
    study = tiny(method=methods(BASE, "sgd", "sgd_2x"), rho=longer)
    assert lengths(study, "longer") == {("once", 4, -1), ("thrice", 12, -1)}


def test_a_shortened_axis_of_lengths_says_what_it_is_now():
    long = dataclasses.replace(BASE, num_epochs=30)
    study = tiny(epochs=scientific("num_epochs", [30, 60]), method=methods(long, "sgd", "sgd_2x"))
    study = dataclasses.replace(study, base=long, axes=[a for a in study.axes if a.name != "rho"])
    quick = study.quick()
    assert lengths(quick, "num_epochs") == {("3", 6, -1), ("6", 12, -1)}
    counted = tiny(steps=scientific("num_train_steps", [40, 80]))
    with pytest.raises(ValueError, match=r"^epochs=3: this study counts steps"):
        counted.lasting(3)


CONFLICTS = {
    "'method' and 'learning_rate' both set learning_rate for 'sam'": {
        "method": Axis("method", "scientific", {"sgd": {}, "sam": {"learning_rate": 0.2}}),
        "rho": nuisance("learning_rate", [0.1, 0.2]),
    },
    "'wide' and 'rho' both set rho for 'sam'": {
        "size": scientific("wide", {"a": {"rho": 0.2}, "b": {"num_neurons": (8,)}}),
    },
    "'method' and 'optimizer' both set optimizer": {"rho": scientific("optimizer", ["sgd", "sam"])},
    "'a' and 'b' both set label_noise": {
        "size": scientific("a", {"x": {"label_noise": 0.1}, "y": {}}),
        "rho": scientific("b", {"x": {"label_noise": 0.1}, "y": {}}),
    },
    "'num_epochs' sets num_epochs, which says nothing": {
        "rho": nuisance("num_epochs", [1, 2]),
        "steps": scientific("num_train_steps", [4, 8]),
    },
}


@pytest.mark.parametrize("words", CONFLICTS)
def test_two_axes_that_set_one_knob_of_a_cell_are_refused(words):
    refused(lambda: tiny(**CONFLICTS[words]), words)


def test_axes_of_different_methods_may_set_one_knob():
    method = {"sgd": {"optimizer": "sgd"}, "sam": {"optimizer": "sam", "learning_rate": 0.2}}
    rate = nuisance("learning_rate", [0.1, 0.3], only=["sgd"])
    study = tiny(method=Axis("method", "scientific", method), rate=rate).validate()
    rates = {(c.labels["method"], c.config.learning_rate) for c in cells(study)}
    assert rates == {("sgd", 0.1), ("sgd", 0.3), ("sam", 0.2)}


@pytest.mark.parametrize(
    "axis",
    [
        repeated("seed", {"a": {"seed": 0}, "b": {"seed": np.int64(0)}}),
        repeated("seed", {"a": {}, "b": {"seed": 0}}),
        repeated("checkpoint_seconds", [1, 2]),
        repeated("weight_decay", {"a": {"weight_decay": 1}, "b": {"weight_decay": 1.0}}),
    ],
    ids=str,
)
def test_a_run_does_not_count_twice(axis):
    refused(lambda: tiny(seed=axis), "are one run, which would count twice")


def numpys():
    base = Config(
        num_neurons=np.array([4]),
        num_epochs=np.int64(2),
        batch_size=np.uint16(100),
        optimizer=np.str_("sgd"),
        nesterov=np.bool_(False),
    )
    radii = {np.float32(0.05): {"rho": np.float32(0.05)}, 0.1: {"rho": fractions.Fraction(1, 10)}}
    axes = (
        scientific(np.str_("num_neurons"), np.array([[4], [8]])),
        methods(base, np.str_("sgd"), "sam"),
        nuisance("rho", radii, only=np.array(["sam"])),
        repeated("seed", np.arange(2)),
    )
    paper = {"gain": [(np.float32(1), np.float64(2), None)]}
    return Study(np.str_("?"), base, axes, maximize=np.bool_(True), paper=paper)


def test_numbers_of_numpy_make_the_same_study(tmp_path):
    study = dataclasses.replace(numpys().validate(), paper={})
    assert study == tiny()
    assert cells(study) == cells(tiny())
    store.save(tmp_path, "s", numpys(), [])
    assert store.load(tmp_path, "s")[0].maximize is True


FAULTS = {
    "x = 1": "must define get_study()",
    "get_study = 3": "must define get_study()",
    "def get_study():\n    pass": "get_study() must return a samscale Study, not NoneType",
    "\ndef get_study():\n    raise OSError('a\\nb')": ": OSError: a b (line 3)",
    "import sys\nsys.exit(3)": ": SystemExit: 3 (line 2)",
    "def f(:": ": SyntaxError: ",
    "def get_study():\n    return get_study()": ": RecursionError: ",
    "def get_study(a): ...": "TypeError: get_study() missing 1 required positional argument",
}


@pytest.mark.parametrize("text", FAULTS, ids=list(FAULTS.values()))
def test_a_fault_of_a_study_file_is_named_with_its_line(text, tmp_path, capsys):
    file = tmp_path / "s.py"
    file.write_text(text)
    assert cli.main(["samscale", "study", str(file), f"--workdir={tmp_path / 'w'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: study='{file}'")
    assert FAULTS[text] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_a_second_study_of_one_name_is_refused_and_one_that_was_edited_or_moved_goes_on(
    tmp_path, capsys
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = tmp_path / "a" / "width.py", tmp_path / "b" / "width.py"
    first.write_text(FILE)
    second.write_text(FILE.replace("(4,), (8,)", "(3,), (5,)"))
    other = cli.studies.load_study(str(second))
    store.save(tmp_path, "width", cli.studies.load_study(str(first)), [], str(first))
    before = (store.place(tmp_path, "width") / "study.json").read_bytes()
    with pytest.raises(ValueError, match=r"take another --workdir, or rename this file") as error:
        store.check_same(tmp_path, "width", other, str(second))
    assert str(first) in str(error.value)
    words = ["samscale", "study", str(second), f"--workdir={tmp_path}"]
    for more in ([], ["--dry-run"]):
        assert cli.main([*words, *more]) == 2
        assert "take another --workdir" in capsys.readouterr().err
    assert (store.place(tmp_path, "width") / "study.json").read_bytes() == before
    store.check_same(tmp_path, "width", other, str(first))  # edited
    second.write_text(FILE.replace("(4,), (8,)", "(4,), (8,), (16,)"))
    store.check_same(tmp_path, "width", cli.studies.load_study(str(second)), str(second))  # moved
    store.check_same(tmp_path, "another", other, str(second))
