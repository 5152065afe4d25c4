"""Rises of groups of examples and in random directions; what all measures of a ball share."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hills import KEY, NOTHING, ROOT, linear, near_minimum, quadratic, relu, relu_at
from samscale.flatness import ball

pytestmark = pytest.mark.usefixtures("in_float64")
pairs = pytest.mark.parametrize("norm, adaptive", [("l2", False), ("linf", True)])
either = pytest.mark.parametrize("adaptive", [False, True])


def searched(rho):
    return ball.worst_case(relu, *near_minimum(), KEY, rho)


def measured(params, data, adaptive):
    return [
        ball.sam_gap(relu, params, data, 0.1, "linf", adaptive).rise,
        ball.m_sharpness(relu, params, data, 0.1, 12, steps=6, adaptive=adaptive).value,
        ball.average_case(relu, params, data, KEY, radius=0.3, adaptive=adaptive).value,
    ]


@either
def test_only_adaptive_measures_are_blind_to_rescaled_layers(adaptive):
    params, data = relu_at()
    scaled = {"in": params["in"] * 3, "out": params["out"] / 3}
    before, after = (np.array(measured(p, data, adaptive)) for p in (params, scaled))
    if adaptive:
        np.testing.assert_allclose(after, before, rtol=1e-9)
    else:
        assert (np.abs(after / before - 1) > 0.05).all()


@either
def test_the_order_of_hidden_units_does_not_matter(adaptive):
    params, data = relu_at()
    turned = {"in": params["in"][:, ::-1], "out": params["out"][::-1]}
    before, after = (measured(p, data, adaptive)[:2] for p in (params, turned))
    np.testing.assert_allclose(after, before, rtol=1e-9)


@either
@pytest.mark.parametrize("law", ["sigma", "radius"])
def test_the_average_rise_of_a_bowl_is_that_of_its_trace(law, adaptive):
    w = jnp.array([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])
    curved = np.diag(ROOT.T @ ROOT) * (np.array(w) ** 2 if adaptive else 1)
    count = 5 if adaptive and law == "radius" else 6 if law == "radius" else 1
    size = {law: 0.2}
    found = ball.average_case(quadratic, w, NOTHING, KEY, adaptive=adaptive, draws=400, **size)
    assert found.n == 400
    assert abs(found.value - 0.2**2 / 2 * curved.sum() / count) < 4 * found.error
    assert found.error < 0.1 * found.value


def test_the_average_has_a_fourth_power_only_of_a_fourth_derivative():
    quartic = lambda w, batch: jnp.full(len(batch), (w**4).sum())
    sizes, draws = np.array([0.1, 0.2, 0.4]), 10_000
    for losses, fourth in ((quadratic, 0), (quartic, 18)):  # E z^4 = 3, for six weights
        at = losses, jnp.ones(6), NOTHING, KEY
        values = np.array([ball.average_case(*at, s, draws=draws).value for s in sizes])
        powers = np.linalg.lstsq(sizes[:, None] ** [2, 4], values)[0]
        np.testing.assert_allclose(sizes[:, None] ** [2, 4] @ powers, values, rtol=1e-9)
        error = (6 * (105 - 3**2) / draws) ** 0.5  # of a mean of sums of six z^4: E z^8 = 105
        assert powers[1] == pytest.approx(fourth, abs=4 * error if fourth else 1e-9)


@pairs
def test_one_group_of_all_is_the_whole_gap(norm, adaptive):
    gap = ball.sam_gap(relu, *near_minimum(), 0.1, norm, adaptive)
    found = ball.m_sharpness(relu, *near_minimum(), 0.1, 12, norm=norm, adaptive=adaptive)
    np.testing.assert_allclose(found.value, gap.rise, rtol=1e-9)
    assert (found.n, np.isnan(found.error)) == (1, True)


@pytest.mark.parametrize("m, chunk", [(1, 5), (4, 2)])
def test_groups_are_measured_one_by_one(m, chunk):
    params, data = near_minimum()
    w, like = ravel_pytree(params)

    def gap(group):
        mean = lambda w: relu(like(w), group).mean()
        g = jax.grad(mean)(w)
        length = jnp.linalg.norm(g)  # 0 where all units of an example are off
        return jnp.where(length > 0, mean(w + 0.1 * g / length) - mean(w), 0)

    groups = jax.tree.map(lambda a: a.reshape(-1, m, *a.shape[1:]), data)
    alone = jax.jit(jax.vmap(gap))(groups)
    found = ball.m_sharpness(relu, params, data, 0.1, m, chunk=chunk)
    expected = np.mean(alone), np.std(alone, ddof=1) / len(alone) ** 0.5, len(alone)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_smaller_groups_and_more_steps_rise_more():
    rise = lambda m, steps=1: ball.m_sharpness(relu, *near_minimum(), 0.1, m, steps).value
    assert rise(12) < rise(4) < rise(1)
    assert rise(4, steps=6) > rise(4)


def test_batches_make_the_same_numbers():
    params, data = near_minimum()
    for measure in (
        functools.partial(ball.sam_gap, rho=0.1),
        functools.partial(ball.worst_case, key=KEY, rho=0.1),
        functools.partial(ball.average_case, key=KEY, sigma=0.1),
    ):
        whole, parts = (measure(relu, params, data, batch_size=size)[:2] for size in (None, 5))
        np.testing.assert_allclose(parts, whole, rtol=1e-9)


@pairs
def test_without_a_slope_sam_sees_nothing(norm, adaptive):
    w = jnp.zeros(6)
    assert ball.sam_gap(quadratic, w, NOTHING, 0.1, norm, adaptive) == (0, 0, 0, 0)
    groups = ball.m_sharpness(quadratic, w, NOTHING, 0.1, 4, norm=norm, adaptive=adaptive)
    assert groups == (0, 0, 3)
    assert ball.worst_case(quadratic, w, NOTHING, KEY, 0.1, norm, adaptive, restarts=1).rise == 0


def test_a_new_radius_does_not_recompile():
    for rho in (0.0, 0.1, 1, np.float64(0.2)):
        searched(rho)
        ball.average_case(relu, *near_minimum(), KEY, sigma=rho)
        if rho == 0:
            programs = ball._run._cache_size()
    assert ball._run._cache_size() == programs


def test_products_of_matrices_are_exact():
    seen = []

    def losses(w, batch):
        seen.append(jax.config.jax_default_matmul_precision)
        return linear(w, batch)

    ball.sam_gap(losses, jnp.ones(3), jnp.ones((4, 3)), 0.1)
    assert set(seen) == {"highest"}


@pytest.mark.parametrize(
    "measure, choices, words",
    [
        ("sam_gap", {"rho": -1.0}, "rho=-1.0: must be finite and at least 0"),
        ("sam_gap", {"rho": np.nan}, "rho=nan: must be finite and at least 0"),
        ("sam_gap", {"rho": 1, "norm": "l1"}, "norm='l1': must be one of ['l2', 'linf']"),
        ("sam_gap", {"rho": 1, "batch_size": 0}, "batch_size=0: must be at least 1"),
        ("worst_case", {"rho": -1, "key": KEY}, "rho=-1: must be finite and at least 0"),
        ("worst_case", {"rho": 1, "key": KEY, "steps": 0}, "steps=0: must be at least 1"),
        ("worst_case", {"rho": 1, "key": KEY, "restarts": 0}, "restarts=0: must be at least 1"),
        ("m_sharpness", {"rho": 1, "m": 5}, "m=5: must divide the 12 examples"),
        ("m_sharpness", {"rho": 1, "m": 0}, "m=0: must divide the 12 examples"),
        ("m_sharpness", {"rho": 1, "m": 4, "chunk": 0}, "chunk=0: must be at least 1"),
        ("m_sharpness", {"rho": 1, "m": 4, "norm": "l0"}, "norm='l0': must be one of"),
        ("average_case", {"key": KEY}, "sigma=None, radius=None: exactly one of both"),
        (
            "average_case",
            {"key": KEY, "sigma": 1, "radius": 2},
            "exactly one of both must be given",
        ),
        ("average_case", {"key": KEY, "sigma": -1}, "sigma=-1: must be finite and at least 0"),
        ("average_case", {"key": KEY, "radius": -2}, "radius=-2: must be finite and at least 0"),
        ("average_case", {"key": KEY, "sigma": 1, "draws": 0}, "draws=0: must be at least 1"),
    ],
)
def test_a_wrong_choice_is_named(measure, choices, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        getattr(ball, measure)(quadratic, jnp.zeros(6), NOTHING, **choices)


@pytest.mark.parametrize(
    "measure",
    [
        functools.partial(ball.sam_gap, rho=0.1),
        functools.partial(ball.worst_case, key=KEY, rho=0.1, batch_size=5),
        functools.partial(ball.average_case, key=KEY, sigma=0.1),
        functools.partial(ball.m_sharpness, rho=0.1, m=4),
    ],
)
def test_a_loss_that_is_a_mean_already_is_refused(measure):
    mean = lambda params, batch: relu(params, batch).mean()
    with pytest.raises(ValueError, match=r"losses: must give \(n,\), one number an example, not"):
        measure(mean, *near_minimum())
