"""The mean square of linearized SGD and SAM: exactly, as walks show it, and below its bound."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from curved import least_squares
from samscale.flatness import dynamics, maps, stability

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(1)
FEATURES, EXAMPLES = 3, 12
each = pytest.mark.parametrize("rho, batch_size", [(0.0, 1), (0.3, 1), (0.0, 4), (0.3, 4)])


def regression():
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, FEATURES))
    w = jnp.ones(FEATURES)
    return w, {"x": x, "y": x @ w}, jnp.einsum("np,nq->npq", x, x)


def threshold(h, rho, batch_size):
    """The largest rate at which the mean square stays."""
    low, high = 1e-6, 10.0
    for _ in range(30):
        middle = math.sqrt(low * high)
        stays = dynamics.exact_growth(h, middle, rho, batch_size) <= 0
        low, high = (middle, high) if stays else (low, middle)
    return low


def test_one_direction_grows_as_the_mean_of_squares():
    h, eta, rho = np.array([0.5, 3.0])[:, None, None], 0.8, 0.3
    factor = np.mean((1 - eta * (h + rho * h**2)) ** 2)
    assert dynamics.exact_growth(h, eta, rho) == pytest.approx(math.log10(factor))
    assert dynamics.exact_growth(h, eta, rho, 2) == pytest.approx(
        2 * math.log10(abs(1 - eta * (1.75 + rho * 1.75**2)))
    )
    assert dynamics.exact_growth(np.ones((1, 1, 1)), 1.0) == -math.inf


def test_many_steps_of_the_second_moment_grow_as_told():
    _, _, h = regression()
    a = np.eye(FEATURES) - 0.7 * np.asarray(h + 0.3 * h @ h)
    x, sizes = np.eye(FEATURES), []
    for _ in range(300):
        x = (a @ x @ a).mean(0)
        sizes.append(np.trace(x))
        x = x / sizes[-1]
    assert dynamics.exact_growth(h, 0.7, 0.3) == pytest.approx(math.log10(sizes[-1]), abs=1e-9)


@each
def test_walks_grow_just_above_the_exact_threshold_and_shrink_just_below(rho, batch_size):
    w, data, h = regression()
    exact = threshold(h, rho, batch_size)
    for factor in (0.95, 1.05):
        eta = factor * exact
        at = least_squares, w, data, KEY, eta, rho, batch_size
        grown = dynamics.simulated(*at, steps=800)
        assert (grown > 0) == (factor > 1)
        told = dynamics.exact_growth(h, eta, rho, batch_size)
        assert grown == pytest.approx(told, abs=0.006)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_condition_five_never_allows_what_grows(rho, seed):
    x = jax.random.normal(jax.random.key(seed), (EXAMPLES, FEATURES)) ** 3
    data, w = {"x": x, "y": x @ jnp.ones(FEATURES)}, jnp.ones(FEATURES)
    h = jnp.einsum("np,nq->npq", x, x)
    rate = stability.largest_stable_rate(*maps.map_moments(least_squares, w, data, rho), KEY)
    assert 0.1 < rate / threshold(h, rho, 1) <= 1 + 1e-3


def test_walks_that_end_leave_no_nan():
    one = {"x": jnp.ones((1, 1)), "y": jnp.ones(1)}
    at = least_squares, jnp.ones(1), one, KEY, 1.0
    assert dynamics.simulated(*at, steps=5) == -math.inf


def test_walks_are_of_the_parameters_dtype():
    w, data, h = regression()
    single = jax.tree.map(lambda a: a.astype(jnp.float32), (w, data))
    grown = dynamics.simulated(least_squares, *single, KEY, 0.2, 0.3, steps=400)
    assert grown == pytest.approx(dynamics.exact_growth(h, 0.2, 0.3), abs=0.02)


WRONG = {
    "batch_size=13: must be between 1 and 12": lambda w, data, h: dynamics.simulated(
        least_squares, w, data, KEY, 0.1, batch_size=13
    ),
    "batch_size=0: must be between 1": lambda w, data, h: dynamics.exact_growth(h, 0.1, 0.0, 0),
    "must be of at most 64 parameters, not 65": lambda w, data, h: dynamics.exact_growth(
        np.zeros((1, 65, 65)), 0.1
    ),
    "batch_size=12: must give at most 100,000 batches": lambda w, data, h: dynamics.exact_growth(
        np.zeros((24, 1, 1)), 0.1, 0.0, 12
    ),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_is_said_in_a_sentence(words):
    with pytest.raises(ValueError, match=words):
        WRONG[words](*regression())
