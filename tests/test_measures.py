"""Every measure, by name: what it says of a point is what the dense matrices say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import curved
from curved import criterion, losses, outputs, power
from samscale import losses as own_losses
from samscale.errors import Diverged
from samscale.flatness import MEASURES, Point, ball, measured
from samscale.flatness.meanings import MEANING, meaning
from samscale.flatness.measures import NEEDS, first_line, lacking

KEY = jax.random.key(4)
every = pytest.mark.parametrize("name", sorted(MEASURES))


def point(**changes):
    params, data = curved.point(jnp.float32)
    here = Point(losses, params, data, outputs, criterion, rho=0.1, batch_size=8)
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
        if not number.endswith(("_se", "_residual")):
            assert meaning(number)


@every
def test_the_same_key_gives_the_same_numbers(name, found):
    assert measured(point(), KEY, [name]) == found[name]


def test_every_number_of_the_list_is_measured(found):
    told = {number.partition("/")[0] for numbers in found.values() for number in numbers}
    assert {*MEANING} - told <= {"m_sharpness_16", "m_sharpness_128"}  # of 24 examples


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
    assert abs(of["trace"] - values.sum()) < 4 * of["trace_se"]
    assert abs(of["frobenius"] - np.linalg.norm(h)) < 4 * of["frobenius_se"]


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
        assert grown(1.02 * rate) > 1e-5
        assert grown(0.98 * rate) < 1e-6


def test_layers_are_blocks_of_the_dense_hessian(found):
    h, _ = dense()
    params, _ = curved.point(jnp.float32)
    for name in params:
        mask = {k: np.full(w.shape, k == name) for k, w in params.items()}
        rows = np.flatnonzero(ravel_pytree(mask)[0])
        exact = np.linalg.eigvalsh(h[np.ix_(rows, rows)])[-1]
        assert found["layers"][f"lambda_1/{name}"] == pytest.approx(exact, rel=1e-2)


def test_without_outputs_stability_is_by_the_hessians_of_examples():
    h, _ = dense()
    of = measured(point(outputs=None, criterion=None), KEY, ["stability"])
    assert of["a"] == pytest.approx(np.linalg.eigvalsh(h)[-1], rel=1e-3)


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_exact_cross_entropy_is_the_usual_one(smoothing):
    z, batch = jax.random.normal(KEY, (7, 4)), {"y": jnp.arange(7) % 4}
    mine = own_losses.exact_cross_entropy(z, batch, smoothing)
    usual = own_losses.cross_entropy(z, batch["y"], jnp.ones(7), smoothing)["loss"]
    assert float(mine.sum()) == pytest.approx(float(usual), rel=1e-6)


def test_its_curvature_stays_right_however_small_the_loss():
    batch = {"y": jnp.array([0])}
    loss = lambda z: own_losses.exact_cross_entropy(z[None], batch)[0]
    usual = lambda z: own_losses.cross_entropy(z[None], batch["y"], jnp.ones(1))["loss"]
    z = jnp.array([12.0, 0.3, -0.5])
    with jax.enable_x64(True):
        exact = np.asarray(jax.hessian(usual)(jnp.asarray(z, jnp.float64)))
    error = lambda f: np.abs(np.asarray(jax.hessian(f)(z)) - exact).max() / np.abs(exact).max()
    assert error(loss) < 1e-6
    assert error(usual) > 1e-3


def test_squared_errors_leave_out_what_is_missing():
    z = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        own_losses.squared_errors(z, {"y": jnp.array([[0.0, jnp.nan], [3.0, 3.0]])}), [1, 1]
    )
    np.testing.assert_allclose(own_losses.squared_errors(z, {"y": jnp.array([1, 0])}), [2, 20])
