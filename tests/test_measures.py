"""Every measure, by name: what it says of a point is what the dense matrices say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import curved
from curved import criterion, losses, outputs, power
from samscale.errors import Diverged
from samscale.flatness import (
    MEASURES,
    Point,
    ball,
    examples,
    measured,
    measures,
)
from samscale.flatness.entries import SMALL
from samscale.flatness.meanings import ASIDE, MEANING, infinite, meaning
from samscale.flatness.measures import NEEDS, first_line, lacking

KEY = jax.random.key(4)
every = pytest.mark.parametrize("name", sorted(MEASURES))


def point(**changes):
    params, data = curved.point(jnp.float32)
    here = Point(losses, params, data, outputs, criterion, rho=0.1, batch_size=8)
    here = here._replace(learning_rate=0.1, train_rho=0.1)
    more = {"activations": Partial(activations), "before": jax.tree.map(jnp.zeros_like, params)}
    return here._replace(**more, start=Partial(activations, params), **changes)


def activations(params, batch):
    hidden = batch["x"] @ params["w"] + params["b"][None]
    return [hidden], jnp.tanh(hidden)


@pytest.fixture(scope="module")
def found():
    return {name: measured(point(), KEY, [name]) for name in MEASURES}


def dense():
    params, data = curved.point(jnp.float32)
    each = np.asarray(curved.hessians(losses, params, data), np.float64)
    return each.mean(0), np.asarray(curved.gauss_newtons(params, data), np.float64)


@every
def test_numbers_are_finite_and_explained(name, found):
    assert found[name]
    assert first_line(name).endswith(".")
    for number, value in found[name].items():
        assert type(value) is float
        assert np.isfinite(value)
        if not number.endswith(ASIDE):
            assert meaning(number)


@every
def test_the_same_key_gives_the_same_numbers(name, found):
    assert measured(point(), KEY, [name]) == found[name]


@every
def test_in_float64_there_are_the_same_numbers(name, found):
    here = point()
    wide = here._replace(mask=jax.tree.map(np.ones_like, here.params)).in_float64()
    with jax.enable_x64(True):
        assert wide.losses(wide.params, wide.data).dtype == wide.hessian().dtype == np.float64
        assert measured(wide, KEY, [name]).keys() == found[name].keys()


def test_every_number_of_the_list_is_measured(found):
    told = {number.partition("/")[0] for numbers in found.values() for number in numbers}
    more = {"m_sharpness_16", "m_sharpness_128"}  # of more than 24 examples
    assert {*MEANING} - told <= {*more, "s3_low"}  # where there are no outputs


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_what_a_point_lacks_is_said_and_left_out(name):
    fields, words = NEEDS[name]
    without = point()._replace(**{fields[-1]: None})
    assert lacking(without, name) == words
    assert not lacking(point(), name)
    assert measured(without, KEY, [name]) == {}


def test_names_are_never_used_twice(found):
    names = [number for numbers in found.values() for number in numbers]
    assert len(names) == len(set(names))


def test_curvature_is_that_of_the_dense_hessian(found):
    h, _ = dense()
    values = np.linalg.eigvalsh(h)
    of = found["curvature"]
    for i in range(3):
        assert of[f"lambda_{i + 1}"] == pytest.approx(values[-1 - i], rel=1e-2)
    assert of["lambda_min"] == pytest.approx(values[0], rel=5e-2)
    assert of["trace"] == pytest.approx(values.sum(), rel=1e-5)  # of few weights: exact
    assert of["frobenius"] == pytest.approx(np.linalg.norm(h), rel=1e-5)
    assert of["trace_se"] == of["frobenius_se"] == 0


def test_stability_is_that_of_the_dense_gauss_newton_matrices(found):
    _, g = dense()
    of = found["stability"]
    top = lambda a: np.linalg.eigvalsh(a)[-1]
    assert of["a"] == pytest.approx(top(g.mean(0)), rel=1e-3)
    for k in (2, 3, 4):
        exact = top(power(g, k).mean(0) - power(g.mean(0), k)) ** (1 / k)
        assert of[f"s{k}"] == pytest.approx(exact, rel=1e-2)
    for name, rho in (("sgd", 0.0), ("sam", 0.1)):
        k = g + rho * g @ g
        rate = of[f"largest_stable_rate_{name}"]
        grown = lambda eta, k=k: top((-2 * eta * k + eta**2 * k @ k).mean(0))
        assert grown(1.001 * rate) > 1e-6  # of few parameters it is exact, to float32
        assert grown(0.999 * rate) < 1e-6


@pytest.mark.parametrize("factor, stable", [(0.99, 1.0), (1.01, 0.0)])
def test_with_more_parameters_than_outputs_the_rates_are_closed_forms(factor, stable):
    here = point()
    here = here._replace(data=jax.tree.map(lambda a: a[:8], here.data), batch_size=1)
    rates = measured(here, KEY, ["stability"])
    g = np.asarray(curved.gauss_newtons(here.params, here.data), np.float64)
    for name, rho in (("sgd", 0.0), ("sam", here.rho)):
        k = np.linalg.eigvalsh(g + rho * g @ g).max()
        rate = rates[f"largest_stable_rate_{name}"]
        assert rate == pytest.approx(2 / k, rel=1e-4)
        used = here._replace(learning_rate=factor * rate, train_rho=rho)
        found = measured(used, KEY, ["stability"])
        assert found["stable"] == stable
        assert (found["excess"] == 0) == (stable == 1)


def test_layers_are_blocks_of_the_dense_hessian(found):
    h, _ = dense()
    params, _ = curved.point(jnp.float32)
    for name in params:
        mask = {k: np.full(w.shape, k == name) for k, w in params.items()}
        rows = np.flatnonzero(ravel_pytree(mask)[0])
        exact = np.linalg.eigvalsh(h[np.ix_(rows, rows)])[-1]
        assert found["layers"][f"lambda_1/{name}"] == pytest.approx(exact, rel=1e-2)


def test_of_few_weights_all_eigenvalues_are_taken(found):
    h, _ = dense()
    values, of = np.linalg.eigvalsh(h), found["density"]
    assert len(values) <= SMALL
    assert of["trace_cubed"] == pytest.approx((values**3).sum(), rel=1e-5)
    assert of["trace_fourth"] == pytest.approx((values**4).sum(), rel=1e-5)
    assert of["trace_cubed_se"] < 1e-5 * of["trace_cubed"]
    floor = -1e-2 * np.abs(values).max()
    assert of["negative_share"] == pytest.approx((values < floor).mean(), abs=1e-6)
    names = ("lambda_1", "lambda_2", "lambda_3", "lambda_min")
    ends = [found["curvature"][name] for name in names]
    np.testing.assert_allclose(ends, values[[-1, -2, -3, 0]], rtol=1e-4)


@pytest.mark.parametrize("size", [3, 60, 150])
def test_at_a_minimum_the_worst_rise_is_that_of_the_largest_eigenvalue(size):
    x = jax.random.normal(KEY, (300, size)) * 0.9 ** jnp.arange(size)[None]
    here = Point(curved.least_squares, jnp.ones(size), {"x": x, "y": x @ jnp.ones(size)}, rho=0.3)
    truth = np.linalg.eigvalsh(x.T @ x / 300)[-1] * 0.3**2 / 2
    for i in range(5):
        of = measured(here, jax.random.key(i), ["sharpness"])
        assert 0.9 * truth <= of["worst_case"] <= truth * (1 + 1e-5)
        assert of["worst_case"] >= of["average_case"] > 0


@pytest.mark.parametrize("name", ["curvature", "sharpness", "noise", "layers", "density", "path"])
def test_a_few_examples_at_a_time_give_the_same_numbers(name, found):
    few = measured(point(chunk=7), KEY, [name])
    assert few.keys() == found[name].keys()
    for number, value in found[name].items():
        if not number.endswith("_residual"):  # of rounding
            assert few[number] == pytest.approx(value, rel=2e-3, abs=2e-5)


def test_so_they_do_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(
        examples, "BUDGET", 3 * examples.footprint(losses, *curved.point(jnp.float32))
    )
    assert point().together() == point().hessian().apply.func.batch_size == 3
    assert point(chunk=24).together() is None
    seen = measured(point(), KEY, ["curvature"])
    h, _ = dense()
    assert seen["lambda_1"] == pytest.approx(np.linalg.eigvalsh(h)[-1], rel=1e-4)


@pytest.mark.parametrize("names", [(), ("curvature",), ("features",)])
def test_a_loss_that_is_a_mean_already_is_refused(names):
    mean = lambda params, batch: losses(params, batch).mean()
    with pytest.raises(ValueError, match=r"losses: must give \(n,\), one number an example, not"):
        measured(point(losses=mean), KEY, names)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_parameters_of_few_digits_are_refused(name):
    here = point()
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), here.params)
    with pytest.raises(ValueError, match="params: must be float32 or float64 together, not bfl"):
        measured(here._replace(params=half), KEY, [name])


def test_infinite_numbers_are_told_and_not_kept():
    nothing = lambda w, batch: batch @ w
    here = Point(nothing, jnp.ones(2), jnp.ones((4, 2)))
    assert measures.numbers(here, KEY, ["stability"])["largest_stable_rate_sgd"] == np.inf
    assert "largest_stable_rate_sgd" not in measured(here, KEY, ["stability"])
    assert infinite("largest_stable_rate_sgd") == "nothing bends"
    assert not infinite("trace")


def test_without_outputs_stability_is_by_the_hessians_of_examples():
    h, _ = dense()
    of = measured(point(outputs=None, criterion=None), KEY, ["stability"])
    assert of["a"] == pytest.approx(np.linalg.eigvalsh(h)[-1], rel=1e-3)
    each = np.asarray(curved.hessians(losses, *curved.point(jnp.float32)), np.float64)
    third = np.linalg.eigvalsh(power(each, 3).mean(0) - power(h, 3))
    assert of["s3"] == pytest.approx(np.cbrt(third[-1]), rel=1e-2)
    assert of["s3_low"] == pytest.approx(np.cbrt(third[0]), rel=1e-2)
    assert "safe_rate" not in of  # Hessians may bend down


def test_a_point_without_a_finite_loss_is_not_flat():
    broken = lambda params, batch: losses(params, batch).at[3].set(jnp.nan)
    with pytest.raises(Diverged, match="not finite"):
        measured(point(losses=broken), KEY, ["noise"])
    params, data = curved.point(jnp.float32)
    assert np.isnan(ball.worst_case(broken, params, data, KEY, 0.1, steps=2).rise)


def test_pruned_weights_do_not_count():
    params, _ = curved.point(jnp.float32)
    mask = {**jax.tree.map(jnp.ones_like, params), "w": jnp.zeros_like(params["w"])}
    kept = lambda p, batch: losses(jax.tree.map(jnp.multiply, p, mask), batch)
    of = measured(point(losses=kept, mask=mask), KEY, ["layers", "sharpness"])
    assert of["lambda_1/w"] == 0
    assert of["lambda_1/v"] > 0
    assert of["worst_case"] > 0


@pytest.mark.parametrize("size", [40, 400])
def test_the_negative_share_is_one_of_the_weights_that_are_kept(size):
    curved_down = jnp.where(jnp.arange(size) % 4 == 0, -1.0, 2.0)
    kept = (jnp.arange(size) % 2 == 0).astype(jnp.float32)  # half of which are bent down
    bowl = lambda w, batch: jnp.broadcast_to(((kept * w) ** 2 * curved_down).sum(), (len(batch),))
    here = Point(bowl, jnp.ones(size), jnp.ones((3, 1)), mask=kept)
    assert measured(here, KEY, ["density"])["negative_share"] == pytest.approx(0.5, abs=0.05)
