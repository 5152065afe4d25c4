"""Every shipped study: legal, priced, shrinkable, at the sizes that its published numbers have."""

import pathlib

import jax
import pytest

from samscale import models, tasks
from samscale.cli.studies import load_study
from samscale.study import cells, published, results
from samscale.study.axes import METHOD, NUISANCE, REPEATED

FILES = sorted(pathlib.Path("studies").glob("*.py"))
INPUTS = {
    "digits": ((8, 8, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "teacher_student": ((100,), 1),
}
PORTRAITS = {"toy_regression", "stability"}  # of what radii that are given find, at no compute
every = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
fair = pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem not in PORTRAITS], ids=lambda path: path.stem
)


def load(path):
    return load_study(str(path)).validate()


PUBLISHED = [path for path in FILES if load(path).paper]


def test_the_studies_that_repeat_the_paper_say_what_it_found():
    found = {path.stem for path in PUBLISHED}
    assert {"cifar10_width", "mnist_width", "synthetic_width", "mnist_sparsity"} < found


def num_params(config):
    if config.task:
        shapes, _ = jax.eval_shape(tasks.build(config).init, jax.random.key(0))
    else:
        shape, outputs = INPUTS[config.dataset]
        knobs = {"num_neurons": config.num_neurons, "num_filters": config.num_filters}
        model = models.build(config.model, outputs, **knobs)
        x = jax.ShapeDtypeStruct((1, *shape), "float32")
        shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    sizes = [(path[-1].key, w.size) for path, w in jax.tree_util.tree_flatten_with_path(shapes)[0]]
    kernels = sum(size for name, size in sizes if name == "kernel")
    return sum(size for _, size in sizes) - round(config.sparsity * kernels)


@every
def test_a_study_is_a_page_that_begins_with_its_command(path):
    text = path.read_text()
    assert len(text.splitlines()) <= (60 if "def get_task" not in text else 150)
    assert f"samscale study studies/{path.name} --workdir=" in text


@fair
def test_a_study_compares_at_equal_compute_on_paired_seeds_with_a_choice_on_validation(path):
    study = load(path)
    first, second, *others = study.methods.values
    assert [first, second] == ["sgd", "sgd_2x"]
    assert {*others} in ({"sam"}, {"usam"}, {"sam", "usam"})
    assert [axis.name for axis in study.role(REPEATED)] == ["seed"]
    assert [axis.only for axis in study.role(NUISANCE) if axis.name == "rho"] == [tuple(others)]
    assert all(cell.config.validation_fraction > 0 for cell in cells(study))
    if study.base.task:  # which may not read that knob
        assert len(tasks.build(study.base).validation["y"]) > 0
    assert study.question.endswith("?")


@pytest.mark.parametrize("name", sorted(PORTRAITS))
def test_a_portrait_has_a_baseline_and_seeds_and_chooses_nothing(name):
    study = load(pathlib.Path(f"studies/{name}.py"))
    assert next(iter(study.methods.values)) == "sgd"
    assert [axis.name for axis in study.role(REPEATED)] == ["seed"]
    assert not study.role(NUISANCE)
    assert len(cells(study.quick().validate())) < len(cells(study))
    assert study.question.endswith("?")


@fair
def test_twice_the_epochs_are_twice_the_epochs_also_when_shortened(path):
    study = load(path)
    for shorter in (study, study.quick(), study.lasting(7)):
        epochs = {c.labels[METHOD]: c.config.num_epochs for c in cells(shorter.validate())}
        *_, sam = study.methods.values
        assert epochs["sgd_2x"] == 2 * epochs["sgd"] == 2 * epochs[sam]
    assert epochs["sgd"] == 7


@fair
def test_quick_is_smaller_in_every_direction_and_keeps_the_methods(path):
    study = load(path)
    quick = study.quick().validate()
    assert len(cells(quick)) <= 150 < 5 * len(cells(study))
    assert list(quick.methods.values) == list(study.methods.values)
    assert quick.base.num_epochs <= 3


@every
def test_more_seeds_keep_what_has_run(path):
    study = load(path)
    ids = lambda study: {cell.config.run_id for cell in cells(study)}
    assert ids(study) < ids(study.replicated(12))
    assert ids(study.replicated(2)) < ids(study)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_points_lie_at_the_sizes_of_the_study(path):
    study = load(path)
    assert "UAI 2025" in study.paper["source"]
    by_size = {cell.labels[study.size.name]: cell.config for cell in cells(study)}
    if study.x == "num_params":
        ours = {num_params(config) for config in by_size.values()}
    else:
        ours = {getattr(config, study.x) for config in by_size.values()}
    panels = [value for key, value in study.paper.items() if "=" in key] or [study.paper]
    for panel in panels:
        for name, points in panel.items():
            if name != "source":
                assert name == "gain" or name in study.methods.values
                assert {x for x, *_ in points} == ours


def test_published_gains_are_differences_of_published_curves():
    """A digit typed wrongly shows; the plots were digitized to 2e-4 of the unit."""
    checked = 0
    for path in FILES:
        study = load(path)
        panels = [value for key, value in study.paper.items() if "=" in key] or [study.paper]
        for paper in panels:
            if {"sgd", "sam", "gain"} <= set(paper):
                for (_, sgd, _), (_, sam, _), (_, gain, _) in zip(
                    paper["sgd"], paper["sam"], paper["gain"], strict=True
                ):
                    sign = 1 if study.maximize else -1
                    assert sign * (sam - sgd) == pytest.approx(gain, abs=2e-4)
                    checked += 1
    assert checked >= 30


def test_pruning_leaves_the_parameters_of_the_smallest_network():
    found = {num_params(cell.config) for cell in cells(load("studies/mnist_sparsity.py"))}
    assert all(abs(size - 61_035) <= 10 for size in found)


def test_published_needs_a_mean_for_every_x():
    assert published((1, 2), "A", gain=(3, 4)) == {
        "source": "A",
        "gain": [(1, 3, None), (2, 4, None)],
    }
    assert published((1,), gain=((3,), (0.5,))) == {"gain": [(1, 3, 0.5)]}
    with pytest.raises(ValueError, match="there are 2 x and 1 means"):
        published((1, 2), gain=(3,))


@pytest.mark.parametrize("change, words", [("lasting", "epochs=0"), ("replicated", "seeds=0")])
def test_a_study_lasts_and_repeats_at_least_once(change, words):
    with pytest.raises(ValueError, match=f"{words}: must be greater than 0"):
        getattr(load(FILES[0]), change)(0)


def test_every_cell_stands_at_the_radius_of_its_label():
    study = load("studies/stability.py")
    table = results.cells(study, "nowhere")
    assert (table["x"] == table["size"].astype(float)).all()
    assert set(table["method"]) == {"sgd", "sam", "usam"}


@pytest.mark.parametrize("name", ["stability", "flatness_width"])
def test_where_linear_stability_is_measured_the_method_that_it_is_about_is_run(name):
    study = load(f"studies/{name}.py")
    assert "stability" in study.base.flatness_measures
    radii = {
        method: {c.config.rho for c in cells(study) if c.config.optimizer == method}
        for method in ("sam", "usam")
    }
    assert radii["sam"] == radii["usam"]
