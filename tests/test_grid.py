"""From axes to cells: which runs a study asks for."""

import dataclasses
from itertools import pairwise

import pytest

from samscale.study import cells, methods, nuisance, scientific
from tiny_study import BASE, tiny


def test_a_nuisance_axis_multiplies_only_its_methods():
    found = cells(tiny())
    assert len(found) == 2 * (2 + 2 * 2)
    assert {c.labels.get("rho") for c in found if c.labels["method"] == "sgd"} == {None}
    assert len({c.config.run_id for c in found}) == len(found)


def test_cells_that_share_a_program_are_neighbours_whatever_the_order_of_the_axes():
    study = tiny()
    study = dataclasses.replace(study, axes=study.axes[::-1])
    programs = [c.config.program_id for c in cells(study)]
    changes = sum(a != b for a, b in pairwise(programs))
    assert changes + 1 == len(set(programs)) == 4


def test_twice_the_baseline_costs_what_sam_costs():
    values = methods(BASE, "sgd", "sgd_2x", "sam").values
    assert values["sgd_2x"] == {"optimizer": "sgd", "length_factor": 2}


def test_quick_keeps_every_method_and_shortens_all_alike():
    axes = tiny().axes
    long = dataclasses.replace(BASE, num_epochs=30)
    study = dataclasses.replace(tiny(method=methods(long, "sgd", "sgd_2x", "sam")), base=long)
    quick = {c.labels["method"]: c.config.num_epochs for c in cells(study.quick())}
    assert quick == {"sgd": 3, "sgd_2x": 6, "sam": 3}
    assert len(axes) == 4


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"seed": scientific("seed", range(2))}, "one must be repeated"),
        ({"size": scientific("num_neuron", [(4,)])}, "did you mean num_neurons"),
        ({"rho": nuisance("rho", [0.1], only=["sma"])}, "only='sma' of 'rho': choose among"),
        ({"rho": nuisance("rho", [-0.5], only=["sam"])}, "rho=-0.5: must be"),
        ({"size": scientific("num_neurons", [])}, "'num_neurons' must have at least one value"),
    ],
)
def test_a_wrong_study_is_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny(**changes).validate()


def test_a_paper_that_is_none_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"^paper=None: must be what published\(\) gives"):
        dataclasses.replace(tiny(), paper=None).validate()
    assert dataclasses.replace(tiny(), paper={}).validate()
