"""Random probes: exact where they must be, and as wrong as they say elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale.flatness import estimates, operators
from samscale.sharpness import draws

KEY = jax.random.key(3)


def matrix(size=30, seed=0, dtype=jnp.float32):
    a = jax.random.normal(jax.random.key(seed), (size, size), dtype)
    return (a + a.T) / 2


def test_a_diagonal_matrix_is_known_after_one_probe():
    d = jnp.arange(1.0, 9.0)
    found = estimates.probed(operators.dense(jnp.diag(d)), KEY, probes=1)
    assert found.trace.value == d.sum()
    assert found.frobenius_squared.value == (d**2).sum()
    np.testing.assert_array_equal(found.diagonal, d)


def test_standard_errors_cover():
    a = matrix()
    op = operators.dense(a)
    exact = np.array([jnp.trace(a), (a**2).sum()])
    inside, diagonal = [], []
    for i in range(200):
        p = estimates.probed(op, jax.random.fold_in(KEY, i), probes=30)
        value = np.array([p.trace.value, p.frobenius_squared.value])
        error = np.array([p.trace.error, p.frobenius_squared.error])
        inside.append(np.abs(value - exact) <= 1.96 * error)
        off = np.abs(p.diagonal - jnp.diag(a))
        diagonal.append((off <= 1.96 * p.diagonal_error).mean())
    share = np.mean(inside, axis=0)
    assert ((share > 0.89) & (share < 0.985)).all(), share  # 95 % less what t at 29 takes
    assert 0.9 < np.mean(diagonal) < 0.97


def test_the_variance_is_twice_what_lies_off_the_diagonal():
    a = matrix()
    p = estimates.probed(operators.dense(a), KEY, probes=4000)
    exact = 2 * ((a**2).sum() - (jnp.diag(a) ** 2).sum())
    assert p.trace.error**2 * 4000 == pytest.approx(float(exact), rel=0.1)


def test_errors_fall_as_the_root_of_the_number():
    op = operators.dense(matrix())
    few, many = (estimates.probed(op, KEY, probes=n).trace.error for n in (100, 6400))
    assert few / many == pytest.approx(8, rel=0.25)


def test_it_stops_when_it_is_sure_enough():
    op = operators.dense(jnp.eye(50) * 3 + 0.05 * matrix(50))
    found = estimates.probed(op, KEY, probes=1000, tolerance=1e-2)
    assert found.trace.n < 100
    assert found.trace.error <= 1e-2 * found.trace.value
    assert estimates.probed(op, KEY, probes=20).trace.n == 20


def test_moments_of_the_spectrum_are_exact_for_each_probe():
    with jax.enable_x64(True):
        a = matrix(dtype=jnp.float64)
        found = estimates.spectrum(operators.dense(a), KEY, steps=4, probes=3)
        for i in range(3):
            z = draws.signs(jax.random.fold_in(KEY, i), (30,), jnp.float64)
            for k in range(8):  # 2 * 4 - 1
                exact = z @ jnp.linalg.matrix_power(a, k) @ z / 30
                mine = (found.weights[i] * found.nodes[i] ** k).sum()
                np.testing.assert_allclose(mine, exact, rtol=1e-9)
        np.testing.assert_allclose(found.weights.sum(-1), 1, rtol=1e-12)


def test_eigenvalues_apart_are_counted_once_and_add_no_error():
    with jax.enable_x64(True):
        values = jnp.concatenate([jnp.array([90.0, -50.0, 30.0]), jnp.linspace(-1, 1, 57)])
        q = jnp.linalg.qr(matrix(60, dtype=jnp.float64))[0]
        a = operators.dense(q @ jnp.diag(values) @ q.T)
        found = estimates.spectrum(a, KEY, steps=25, probes=4, apart=3)
        np.testing.assert_allclose(found.apart, [90, -50, 30], rtol=1e-9)
        rest = q[:, 3:] @ jnp.diag(values[3:]) @ q[:, 3:].T
        for i in range(4):
            z = draws.signs(jax.random.fold_in(KEY, i), (60,), jnp.float64)
            for k in range(1, 8):
                exact = (found.apart**k).sum() + float(z @ jnp.linalg.matrix_power(rest, k) @ z)
                # a Lanczos basis is orthogonal to the root of rounding, 1.5e-8, and what a
                # vector is off by counts with the power of its eigenvalue
                within = 1.5e-8 * np.abs(found.apart**k).sum()
                assert found.draws(lambda x, k=k: x**k)[i] == pytest.approx(exact, abs=within)
        cubes, fourths = estimates.cubes_and_fourths(a, KEY, 4, found)
        np.testing.assert_allclose(cubes, found.draws(lambda x: x**3), rtol=1e-9)
        np.testing.assert_allclose(fourths, found.draws(lambda x: x**4), rtol=1e-9)


def test_what_has_not_converged_is_not_set_apart():
    a = operators.dense(jnp.diag(jnp.linspace(1.0, 2.0, 200)))
    assert len(estimates.spectrum(a, KEY, steps=6, probes=1, apart=5).apart) < 5


def test_traces_of_functions_cover():
    a = matrix()
    found = estimates.spectrum(operators.dense(a), KEY, steps=30, probes=40)
    for f in (lambda x: x**3, lambda x: x**2, np.abs, np.exp):
        exact = f(np.linalg.eigvalsh(a)).sum()
        guess = found.trace_of(f)
        assert abs(guess.value - exact) < 4 * guess.error


def test_a_density_is_one_in_all_and_peaks_at_eigenvalues():
    values = jnp.array([1.0, 1.0, 1.0, 5.0])
    found = estimates.spectrum(operators.dense(jnp.diag(values)), KEY, steps=4, probes=2)
    grid = np.linspace(-2, 8, 2001)
    density = found.density(grid, width=0.1)
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, rel=1e-3)
    assert grid[density.argmax()] == pytest.approx(1, abs=0.01)
    near_five = density[np.abs(grid - 5) < 1].sum() * (grid[1] - grid[0])
    assert near_five == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize(
    "call", [estimates.probed, lambda *a, probes: estimates.spectrum(*a, 1, probes)]
)
def test_no_probes_are_refused(call):
    with pytest.raises(ValueError, match="probes=0: must be at least 1"):
        call(operators.dense(jnp.eye(2)), KEY, probes=0)
