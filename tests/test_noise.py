"""Noise of gradients against the dense covariance and Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import curved
from curved import losses
from samscale.flatness import noise, operators

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(2)


def dense():
    params, data = curved.point()
    flat, tree = ravel_pytree(params)
    g = jax.jacrev(lambda w: losses(tree(w), data))(flat)
    off = g - g.mean(0)[None]
    return params, data, off.T @ off / curved.N, curved.hessians(losses, params, data).mean(0)


def test_the_covariance_is_that_of_the_gradients_of_examples():
    params, data, sigma, _ = dense()
    np.testing.assert_allclose(
        operators.matrix(noise.covariance(losses, params, data)), sigma, rtol=1e-9, atol=1e-9
    )


def test_numbers_are_the_dense_ones_within_their_errors():
    params, data, sigma, h = dense()
    found = noise.noise(losses, params, data, KEY, probes=400)
    for name, exact in (
        ("noise_trace", jnp.trace(sigma)),
        ("noise_curvature", jnp.trace(sigma @ h)),
    ):
        assert abs(found[name] - exact) < 4 * found[f"{name}_se"]
        assert found[f"{name}_se"] < 0.1 * abs(exact)
    frobenius = float(jnp.linalg.norm(sigma))
    assert found["noise_frobenius"] == pytest.approx(frobenius, rel=0.1)
    cosine = float(jnp.trace(sigma @ h)) / (frobenius * float(jnp.linalg.norm(h)))
    assert found["alignment"] == pytest.approx(cosine, rel=0.15)


def test_sharpness_of_the_whole_batch_is_along_its_gradient():
    params, data, _, h = dense()
    flat, tree = ravel_pytree(params)
    g = jax.grad(lambda w: losses(tree(w), data).mean())(flat)
    found = noise.batch_sharpness(losses, params, data, KEY, curved.N, draws=2)
    assert found.value == pytest.approx(float(g @ h @ g / (g @ g)), rel=1e-9)
    assert found.error == pytest.approx(0, abs=1e-9)
    rho = 0.3
    up = tree(flat + rho * g / jnp.linalg.norm(g))
    g = jax.grad(lambda w: losses(tree(w), data).mean())(ravel_pytree(up)[0])
    h = curved.hessians(losses, up, data).mean(0)
    above = noise.batch_sharpness(losses, params, data, KEY, curved.N, rho, draws=1)
    assert above.value == pytest.approx(float(g @ h @ g / (g @ g)), rel=1e-9)


def test_batches_of_one_average_over_examples():
    params, data, _, _ = dense()
    each = curved.hessians(losses, params, data)
    flat, tree = ravel_pytree(params)
    g = jax.jacrev(lambda w: losses(tree(w), data))(flat)
    exact = jnp.einsum("np,npq,nq->n", g, each, g) / (g**2).sum(1)
    found = noise.batch_sharpness(losses, params, data, KEY, 1, draws=400)
    assert abs(found.value - exact.mean()) < 4 * found.error


def test_no_gradient_has_no_sharpness():
    flat = lambda params, batch: 0 * losses(params, batch)
    params, data = curved.point()
    found = noise.noise(flat, params, data, KEY, batch_size=4, probes=2)
    assert all(value == 0 for value in found.values())


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="batch_size=25: must be between 1 and 24"):
        noise.batch_sharpness(losses, *curved.point(), KEY, 25)
