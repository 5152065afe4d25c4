"""Rates of convergence and constants of the path, on problems whose constants are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from curved import hessians, least_squares
from samscale import sharpness
from samscale.flatness import operators, path, rates

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)


def regression(n=8, size=12):
    """More weights than examples, so that it can be interpolated."""
    x = jax.random.normal(KEY, (n, size)) / size**0.5
    return {"x": x, "y": x @ jnp.ones(size)}


def known(data):
    """beta, lambda and alpha of the theorem."""
    h = operators.hessian(least_squares, jnp.zeros(data["x"].shape[1]), data)
    return rates.constants(h, (data["x"] ** 2).sum(1))


def test_constants_of_least_squares_are_those_of_its_matrix():
    data = regression()
    beta, lam, alpha = known(data)
    h = np.asarray(data["x"].T @ data["x"]) / 8
    values = np.linalg.eigvalsh(h)
    assert lam == pytest.approx(values[-1])
    assert alpha == pytest.approx(2 * values[4])  # 12 - 8 are zero
    w = np.asarray(jax.random.normal(jax.random.key(1), (100, 12)))
    f = np.array([least_squares(jnp.asarray(v), data).mean() for v in w])
    g = (w @ h) - np.asarray(h.sum(1))
    assert ((g**2).sum(1) >= alpha * f * (1 - 1e-9)).all()  # PL
    each = (np.asarray(data["x"]) ** 2).sum(1)
    assert beta == pytest.approx(each.max())


def trained(data, eta, rho, batch_size, seed, steps):
    """The losses of unnormalized SAM on random batches."""

    def step(w, key):
        rows = jax.random.randint(key, (batch_size,), 0, 8)
        batch = jax.tree.map(lambda a: a[rows], data)
        mean = lambda w, batch: least_squares(w, batch).mean()
        sam = sharpness.usam(jax.value_and_grad(mean), rho)
        (_, g), _, _ = sam.value_and_grad(w, sam.init(w), batch)
        return w - eta * g, least_squares(w, data).mean()

    keys = jax.random.split(jax.random.key(seed), steps)
    return jax.lax.scan(step, jnp.zeros(12), keys)[1]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_measured_rate_respects_the_bound(batch_size, share):
    data = regression()
    beta, lam, alpha = known(data)
    rho = share / ((beta / alpha + 0.5) * beta)
    eta = rates.best_rate(beta, lam, alpha, rho, batch_size)
    run = jax.jit(jax.vmap(lambda seed: trained(data, eta, rho, batch_size, seed, 400)))
    mean = np.asarray(run(jnp.arange(64))).mean(0)
    promised = rates.bound(beta, lam, alpha, rho, eta, batch_size)
    assert promised < 1
    assert (mean <= mean[0] * promised ** np.arange(400)).all()
    assert rates.fitted(mean).factor <= promised


def factorised(width=10):
    """A point W2 W1 = A of a 10 x 6 matrix, where every example's loss is zero, and examples."""
    rng, wider = np.random.default_rng(0), (0, width - 6)
    a, x = rng.standard_normal((6, 10)), rng.standard_normal((8, 6))
    u, s, v = np.linalg.svd(a, full_matrices=False)
    w1, w2 = u * s**0.5, (v.T * s**0.5).T
    params = {"w1": np.pad(w1, ((0, 0), wider)), "w2": np.pad(w2, (wider, (0, 0)))}
    return jax.tree.map(jnp.asarray, (params, {"x": x, "y": x @ a}))


def product(w, batch):
    return ((batch["x"] @ w["w1"] @ w["w2"] - batch["y"]) ** 2).sum(-1)


def expected(params, data, directions, rho, batch_size):
    """eta -> the mean of f after a step over f before, over *all* batches, beside ``params``."""
    flat, tree = ravel_pytree(params)
    batches = jnp.array([*itertools.product(range(8), repeat=batch_size)])
    mean = lambda w, batch: product(w, batch).mean()

    def after(start, rows, eta):
        sam = sharpness.usam(jax.value_and_grad(mean), rho)
        batch = jax.tree.map(lambda a: a[rows], data)
        (_, g), _, _ = sam.value_and_grad(start, sam.init(start), batch)
        return mean(jax.tree.map(lambda w, g: w - eta * g, start, g), data)

    def factor(direction, eta):
        start = tree(flat + 1e-4 * direction)  # so near that the constants are those of ``params``
        steps = jax.vmap(after, (None, 0, None))(start, batches, eta)
        return steps.mean() / mean(start, data)

    return jax.jit(lambda eta: jax.lax.map(lambda d: factor(d, eta), directions))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_near_a_factorisation_every_direction_shrinks_as_promised(batch_size):
    params, data = factorised()
    h = operators.hessian(product, params, data)
    each = np.linalg.eigvalsh(hessians(product, params, data))[:, -1]
    beta, lam, alpha = rates.constants(h, each)
    rho = 0.5 / ((beta / alpha + 0.5) * beta)
    eta = rates.best_rate(beta, lam, alpha, rho, batch_size)
    promised = lambda alpha: rates.bound(beta, lam, alpha, rho, eta, batch_size)

    values, vectors = np.linalg.eigh(operators.matrix(h))
    curved = jnp.asarray(vectors.T[values > 1e-9])
    assert len(curved) == 60  # A has as many entries; in the other 100 directions all stays zero
    factors = expected(params, data, curved, rho, batch_size)
    worst = factors(eta).max()
    assert worst <= promised(alpha) < 1
    assert worst > promised(5 * alpha)  # more would be too much to promise: within a factor of 5
    assert factors(100 * eta).max() > 1  # no step size of that kind is safe


def test_the_best_rate_is_where_the_bound_is_least():
    eta = rates.best_rate(2.0, 1.0, 0.5, 0.01, 4)
    at = lambda factor: rates.bound(2.0, 1.0, 0.5, 0.01, factor * eta, 4)
    assert at(1) < min(at(0.9), at(1.1))


def test_batches_of_one_have_the_rate_that_theorem_6_6_prints():
    beta, lam, alpha, rho = 2.0, 1.5, 0.5, 0.02
    slack = alpha - (beta + alpha / 2) * beta * rho
    eta = slack / (2 * lam * beta * (beta * rho + 1) ** 2)
    assert rates.best_rate(beta, lam, alpha, rho) == pytest.approx(eta)
    assert rates.bound(beta, lam, alpha, rho, eta) == pytest.approx(1 - slack * eta / 2)


def test_batches_have_the_rate_that_theorem_h_3_prints():
    beta, lam, alpha, rho, kappa = 2.0, 1.5, 0.5, 0.02, (3 / 2 + 4) / 4
    slack = 1 - (kappa + 0.5) * beta * rho
    eta = slack / (2 * lam * kappa * (beta * rho + 1) ** 2)
    assert rates.best_rate(beta, lam, alpha, rho, 4) == pytest.approx(eta)
    assert rates.bound(beta, lam, alpha, rho, eta, 4) == pytest.approx(1 - alpha * eta * slack / 2)


def test_without_a_radius_the_bound_is_that_of_sgd():
    """Bassily et al., 2018, for batches of one: 1 - eta alpha + eta^2 beta lambda."""
    assert rates.bound(2.0, 1.5, 0.5, 0.0, 0.1) == pytest.approx(1 - 0.05 + 0.01 * 3.0)


def test_a_geometric_series_is_fitted_exactly():
    found = rates.fitted(3 * 0.9 ** np.arange(20))
    assert found.factor == pytest.approx(0.9)
    assert found.low == pytest.approx(0.9)
    assert found.fit == pytest.approx(1)
    assert rates.fitted(3 * 0.9 ** np.arange(0, 20, 2), np.arange(0, 20, 2)).factor == (
        pytest.approx(0.9)
    )


def test_intervals_of_a_rate_cover():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(300):
        losses = np.exp(-0.05 * np.arange(30) + 0.1 * rng.normal(size=30))
        found = rates.fitted(losses)
        inside += found.low <= np.exp(-0.05) <= found.high
    assert 270 <= inside <= 297


def test_the_interval_of_a_rate_has_students_quantile():
    """Three losses leave one degree of freedom: 12.7 standard errors of the line."""
    losses = np.exp(np.array([0.0, -1.2, -2.0]))
    found = rates.fitted(losses)
    slope = -1.0
    residual = np.array([0.0, -1.2, -2.0]) + 16 / 15 + np.array([-1.0, 0.0, 1.0])
    sem = np.sqrt((residual**2).sum() / 1 / 2)
    assert np.log(found.high) - slope == pytest.approx(12.7062 * sem, rel=1e-5)
    assert slope - np.log(found.low) == pytest.approx(12.7062 * sem, rel=1e-5)


def test_a_quadratic_has_the_constants_of_its_path():
    a = jnp.diag(jnp.array([4.0, 1.0, 0.25]))
    losses = lambda w, batch: (w @ a @ w / 2) * jnp.ones(len(batch))
    start, end, data = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, 0.0, 1.0]), jnp.zeros(2)
    found = path.along(losses, start, end, data, parts=4)
    d = end - start
    assert found.smoothness == pytest.approx(float(jnp.linalg.norm(a @ d) / jnp.linalg.norm(d)))
    points = [start + g * d for g in (0.25, 0.5, 0.75, 1.0)]
    ratios = [float(((a @ w) ** 2).sum() / (w @ a @ w / 2)) for w in points]
    assert found.pl == pytest.approx(min(ratios))


def test_a_path_that_stands_still_has_no_smoothness_and_none_above_the_least_no_pl():
    losses = lambda w, batch: (w**2).sum() * jnp.ones(len(batch))
    found = path.along(losses, jnp.zeros(2), jnp.zeros(2), jnp.zeros(3))
    assert found == (0.0, np.inf)


def test_streamed_a_path_has_the_same_constants():
    data, w = regression(), jnp.ones(12)
    whole = path.along(least_squares, 0 * w, 2 * w, data)
    parts = path.along(least_squares, 0 * w, 2 * w, data, batch_size=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: rates.fitted([1.0, 0.5]), "losses: must be three numbers"),
        (lambda: rates.fitted([1.0, 0.5, 0.0]), "losses: must be finite and greater than 0"),
        (lambda: rates.bound(2.0, 1.0, 0.5, 1.0, 0.1), "rho=1.0: must be between 0 and 0.111111"),
        (lambda: path.along(least_squares, 0, 0, None, parts=0), "parts=0: must be at least 1"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
