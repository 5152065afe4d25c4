"""Moments of Hessians and of steps' maps are those of the dense matrices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import least_squares, losses, power
from samscale.flatness import maps, operators, output_space

pytestmark = pytest.mark.usefixtures("in_float64")

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)  # rounding, of doubles
EXAMPLES = 12


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.5])
def test_condition_five_as_printed_is_the_compact_one(rho):
    params, data = curved.point()
    h, eta = curved.hessians(losses, params, data), 0.3
    H, M = h.mean(0), [power(h, k).mean(0) for k in range(5)]
    first = jnp.eye(len(H)) - eta * H - eta * rho * H @ H
    printed = (
        first @ first
        + eta * (eta - 2 * rho) * (M[2] - H @ H)
        + 2 * eta**2 * rho * (M[3] - power(H, 3))
        + eta**2 * rho**2 * (M[4] - power(H, 4))
    )
    op = maps.growth(*maps.map_moments(losses, params, data, rho), eta)
    mine = jax.jit(operators.matrix)(op) + jnp.eye(len(H))
    np.testing.assert_allclose(mine, printed, rtol=1e-9, atol=1e-9)  # rounding


@pytest.mark.parametrize("batch_size", [1, 2, 5, 12])
def test_batches_without_replacement_have_the_moments_of_all_their_kinds(batch_size):
    w, data, h = curved.regression()
    mean, square = maps.map_moments(least_squares, w, data, batch_size=batch_size)
    kinds = [
        np.asarray(h)[list(rows)].mean(0) for rows in itertools.combinations(range(12), batch_size)
    ]
    np.testing.assert_allclose(operators.matrix(mean), np.mean(kinds, 0), rtol=1e-9)  # rounding
    exact = np.mean([b @ b for b in kinds], 0)
    np.testing.assert_allclose(operators.matrix(square), exact, rtol=1e-9)  # rounding


def test_batches_of_sam_average_over_all_maps():
    w, data, h = curved.regression()
    mean, square = maps.map_moments(least_squares, w, data, 0.3, batch_size=4)
    b = of_all(h, 4)
    k = b + 0.3 * b @ b
    np.testing.assert_allclose(operators.matrix(mean), k.mean(0), rtol=1e-9)  # rounding
    np.testing.assert_allclose(operators.matrix(square), (k @ k).mean(0), rtol=1e-9)  # rounding


def of_all(h, batch_size):
    every = itertools.combinations(range(len(h)), batch_size)
    return np.stack([np.asarray(h)[list(rows)].mean(0) for rows in every])


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_the_growth_is_one_polynomial_of_moments(rho, batch_size):
    w, data, h = curved.regression()
    moment = maps.hessian_moments(least_squares, w, data)
    growing = maps.step_growth(moment, EXAMPLES, 0.7, rho, batch_size)
    whole = maps.growth(*maps.step_moments(moment, EXAMPLES, rho, batch_size), 0.7)
    np.testing.assert_allclose(*map(operators.matrix, (growing, whole)), atol=1e-12)  # rounding
    b = of_all(h, batch_size)
    mean = maps.step_mean(moment, EXAMPLES, rho, batch_size)
    np.testing.assert_allclose(
        operators.matrix(mean), (b + rho * b @ b).mean(0), atol=1e-12
    )  # rounding


@pytest.mark.parametrize("whole", [(), (0.5,), (0, 2.0), (0, 0, -1), (0.1, 0.2, 0.3, 0.4, -0.5)])
def test_powers_of_the_mean_add_to_moments(whole):
    params, data, blocks = curved.few(24)
    g = np.asarray(curved.gauss_newtons(params, data))
    c = (0.3, 0.0, 2.0, -1.0)
    exact = sum(c[k] * power(g, k).mean(0) for k in range(4))
    exact = exact + sum(d * np.linalg.matrix_power(g.mean(0), k) for k, d in enumerate(whole))
    op = output_space.moments(curved.outputs, params, data, blocks, c, whole)
    close(jax.jit(operators.matrix)(op), exact)
    if all(d == 0 for d in whole[:1]):
        ours = maps.hessian_moments(losses, params, data)(c, whole=whole)
        h = np.asarray(curved.hessians(losses, params, data))
        exact = sum(c[k] * power(h, k).mean(0) for k in range(4))
        exact = exact + sum(d * np.linalg.matrix_power(h.mean(0), k) for k, d in enumerate(whole))
        close(jax.jit(operators.matrix)(ours), exact)


def test_orders_beyond_the_fourth_are_refused():
    params, data, blocks = curved.few(8)
    for orders in (((0,) * 6,), ((0, 1), (0,) * 6)):
        with pytest.raises(ValueError, match="coefficients: must be of orders up to 4"):
            output_space.moments(curved.outputs, params, data, blocks, *orders)


@pytest.mark.parametrize("size", [1, 4, 24])
def test_gauss_newton_matrices_of_batches_have_the_moments_of_their_means(size):
    params, data = curved.point()
    rows = np.random.default_rng(0).permuted(np.tile(np.arange(24), (5, 1)), axis=1)[:, :size]
    g = np.asarray(curved.gauss_newtons(params, data))[rows].mean(1)
    c = (0.5, 1.0, -0.2, 0.03, 0.01)
    exact = sum(c[k] * power(g, k).mean(0) for k in range(5))
    at = curved.outputs, curved.criterion, params, data
    op = output_space.batch_moments(*at, c, rows)
    close(jax.jit(operators.matrix)(op), exact)


def test_the_forms_of_examples_are_those_of_their_matrices():
    params, data, blocks = curved.few(24)
    v = np.random.default_rng(0).normal(size=40)
    exact = np.einsum("p,npq,q->n", v, np.asarray(curved.gauss_newtons(params, data)), v)
    for together in (None, 7):
        close(output_space.forms(curved.outputs, params, data, blocks, v, together), exact)
