"""Non-uniformity and condition (5) in single precision, beside dense matrices in double."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import losses
from samscale.flatness import maps, operators, stability

KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def dense():
    """Hessians of the examples of the single-precision point, in double."""
    params, data = curved.point(jnp.float32)
    with jax.enable_x64(True):
        wide = lambda a: jnp.asarray(a, jnp.float64) if a.dtype == jnp.float32 else a
        return np.asarray(curved.hessians(losses, *jax.tree.map(wide, (params, data))))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_non_uniformity(k, dense):
    matrix = np.linalg.matrix_power(dense, k).mean(0)
    exact = np.linalg.eigvalsh(matrix - np.linalg.matrix_power(dense.mean(0), k))[-1]
    found = stability.non_uniformity(losses, *curved.point(jnp.float32), KEY, k, tolerance=1e-5)
    assert found.value == pytest.approx(exact ** (1 / k), rel=1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.5])
def test_condition_five(rho, dense):
    eta = 0.3
    a = np.eye(dense.shape[-1]) - eta * (dense + rho * dense @ dense)
    exact = (a @ a).mean(0) - np.eye(dense.shape[-1])
    pair = maps.map_moments(losses, *curved.point(jnp.float32), rho)
    op = maps.growth(*pair, eta)
    assert op.dtype == jnp.float32
    found = jax.jit(operators.matrix)(op)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
