"""From the side of the outputs: the same eigenvalues, vectors, batches; rates that are safe."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import criterion, outputs, power
from samscale.flatness import Point, batches, dual, krylov, operators, output_space, thresholds

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(2)


def near(found, exact):
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)  # rounding, of doubles


def top(a):
    return float(np.linalg.eigvalsh(a)[-1])


def seen(n):
    params, data, blocks = curved.few(n)
    g = np.asarray(curved.gauss_newtons(params, data))
    return (outputs, params, data), dual.halves(blocks), g


@pytest.mark.parametrize("batch_size", [None, 5, 8, 100])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [8, 24])
def test_the_short_side_has_the_eigenpairs_of_the_long_one(n, k, batch_size):
    at, halves, g = seen(n)
    half, exact = halves.of_power(k), power(g, k).mean(0)
    op = dual.operator(*at, half, batch_size)
    values = np.linalg.eigvalsh(jax.jit(operators.matrix)(op))[::-1]
    rank = min(len(values), len(exact))
    near(values[:rank] / values[0], np.linalg.eigvalsh(exact)[::-1][:rank] / values[0])
    found = krylov.eigenpairs(op, KEY, tolerance=1e-11)
    v = dual.lifted(*at, half, found.vectors[0], batch_size)
    # a basis of Lanczos is orthogonal to the root of rounding, and so near are its vectors
    np.testing.assert_allclose(exact @ v / found.values[0], v, atol=1.5e-8)


def test_the_eigenvalues_of_each_example_are_the_dense_ones():
    _, halves, g = seen(24)
    near(halves.values, np.linalg.eigvalsh(g)[:, -curved.CLASSES :])


def test_batches_have_the_eigenvalues_of_their_means():
    at, halves, g = seen(23)
    rows = np.random.default_rng(0).permutation(23)[:20].reshape(4, 5)
    op = dual.of_batches(*at, halves.of_power(1), rows)
    found = np.sort(np.linalg.eigvalsh(jax.jit(operators.matrix)(op)))
    exact = np.linalg.eigvalsh(g[rows].mean(1))[:, -15:]
    near(found, np.sort(exact.ravel()))


def test_a_criterion_that_bends_down_has_no_half():
    params, data = curved.point()
    down = lambda z, batch: -jnp.square(z).sum(1)
    assert dual.halves(output_space.blocks(outputs, down, params, data)) is None
    with pytest.raises(ValueError, match="criterion: must bend up in the outputs"):
        dual.eigenvalues(outputs, down, params, data)


@pytest.mark.parametrize("batch_size", [5, 8, 24])
def test_moments_of_few_examples_at_a_time_are_those_of_all(batch_size):
    params, data, blocks = curved.few(24)
    at = outputs, params, data, blocks, (0.5, 1, -0.2, 0.03, 0.01), (0, 1.0, -2.0, 0.3)
    near(
        *(jax.jit(operators.matrix)(output_space.moments(*at, size)) for size in (None, batch_size))
    )


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize("n", [8, 12])
def test_up_to_the_safe_rate_the_condition_holds_over_all_batches(n, batch_size, rho):
    """40 parameters, at most 36 outputs: the rate of batches of one cannot be larger."""
    params, data, _ = curved.few(n)
    point = Point(curved.losses, params, data, outputs, criterion)
    point = point._replace(learning_rate=1.0, train_rho=rho, batch_size=batch_size)
    rate = thresholds.linear_stability(point, KEY)["safe_rate"]
    g = np.asarray(curved.gauss_newtons(params, data))
    rows = itertools.combinations(range(n), batch_size)
    every = np.stack([g[list(batch)].mean(0) for batch in rows])
    k = every + rho * every @ every
    grown = lambda eta: top((-2 * eta * k + eta**2 * k @ k).mean(0))
    assert grown(rate) <= 1e-12
    if batch_size == 1:
        assert grown(1.001 * rate) > 1e-12


@pytest.mark.parametrize("rho", [0.0, 0.2])
@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_at_the_safe_rate_nothing_is_searched_for(batch_size, rho):
    params, data, _ = curved.few(8)
    point = Point(curved.losses, params, data, outputs, criterion, train_rho=rho)
    point = point._replace(batch_size=batch_size, learning_rate=1e-9)
    rate = thresholds.linear_stability(point, KEY)["safe_rate"]
    found = thresholds.linear_stability(point._replace(learning_rate=rate), KEY)
    assert found["stable"] == 1
    assert found["excess"] == 0  # a search finds rounding
    g = np.asarray(curved.gauss_newtons(params, data))
    share = batches.share(8, batch_size)
    mean = g.mean(0) + rho * (share * (g @ g).mean(0) + (1 - share) * g.mean(0) @ g.mean(0))
    assert found["mean_rate"] == pytest.approx(rate * top(mean), rel=1e-2)


def test_the_mean_of_batches_may_be_largest_where_that_of_examples_is_not():
    """Two weights: one bent by 1 in all ten examples, one by 2.475 in four, by 0.99 on average."""
    bend = jnp.zeros((10, 2)).at[:, 0].set(1.0).at[:4, 1].set(2.475)
    scaled = lambda w, batch: jnp.sqrt(batch) * w[None]
    criterion = lambda z, batch: jnp.square(z).sum(1) / 2
    losses = lambda w, batch: criterion(scaled(w, batch), batch)
    point = Point(losses, jnp.ones(2), bend, scaled, criterion, batch_size=2)
    found = thresholds.linear_stability(point._replace(learning_rate=1e-3, train_rho=10.0), KEY)
    assert found["a"] == pytest.approx(1.0, rel=1e-6)
    share = batches.share(10, 2)
    largest = 0.99 + 10 * (share * 0.4 * 2.475**2 + (1 - share) * 0.99**2)
    assert found["mean_rate"] == pytest.approx(1e-3 * largest, rel=1e-6)
