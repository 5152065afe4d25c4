"""The convolution equals XLA's, and so do its derivatives of first and second order."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from samscale.models import conv as conv_module
from samscale.models.conv import Conv, conv

TOLERANCE = {jnp.float32: 1e-5, jnp.float64: 1e-12, jnp.bfloat16: 2e-2}
ONE, THREE = ((1, 1), (1, 1)), ((3, 3), (3, 3))

# x, kernel, stride, padding
CASES = [
    pytest.param((4, 8, 8, 3), (3, 3, 3, 8), 1, ONE, id="stem"),
    pytest.param((4, 8, 8, 8), (3, 3, 8, 8), 1, ONE, id="3x3"),
    pytest.param((3, 8, 8, 8), (3, 3, 8, 4), 2, ONE, id="3x3-strided"),
    pytest.param((2, 28, 28, 3), (7, 7, 3, 4), 2, THREE, id="7x7-strided"),
    pytest.param((5, 7, 7, 8), (3, 3, 8, 8), 2, "SAME", id="odd-strided"),
    pytest.param((5, 7, 5, 8), (3, 2, 8, 8), 1, "SAME", id="uneven"),
    pytest.param((3, 9, 9, 8), (3, 3, 8, 4), 2, "VALID", id="valid"),
    pytest.param((3, 8, 8, 8), (1, 1, 8, 4), 1, "SAME", id="1x1"),
    pytest.param((3, 7, 7, 8), (1, 1, 8, 4), 2, "SAME", id="1x1-strided"),
    pytest.param((3, 7, 7, 8), (1, 1, 8, 4), 2, ONE, id="1x1-padded"),
]


def plain(x, kernel, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def derivatives(convolve, x, kernel):
    """The value; loss and gradients, and their derivatives along a direction."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    loss = lambda x, kernel: jnp.sin(convolve(x, kernel).astype(dtype)).sum()
    along = (x * x, kernel * kernel)
    return convolve(x, kernel), jax.jvp(jax.value_and_grad(loss, (0, 1)), (x, kernel), along)


def gradient_of_gradients(convolve, x, kernel):
    def norm(x, kernel):
        loss = lambda x, kernel: jnp.sin(convolve(x, kernel)).sum()
        return sum((g**2).sum() for g in jax.grad(loss, (0, 1))(x, kernel))

    return jax.grad(norm, (0, 1))(x, kernel)


def replicas(convolve, x, kernel):
    kernels = jnp.stack([kernel, kernel * kernel])
    return jax.vmap(partial(derivatives, convolve), (None, 0))(x, kernels)


def arrays(x_shape, kernel_shape, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    fan_in = np.prod(kernel_shape[:3])
    x, kernel = rng.normal(size=x_shape), rng.normal(size=kernel_shape) / np.sqrt(fan_in)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def assert_close(actual, expected, tolerance):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * abs(b).max())


def assert_same(law, x, kernel, stride, padding):
    ours, theirs = (
        partial(convolve, strides=(stride, stride), padding=padding) for convolve in (conv, plain)
    )
    actual, expected = (jax.jit(partial(law, convolve))(x, kernel) for convolve in (ours, theirs))
    assert_close(actual, expected, TOLERANCE[jnp.dtype(x.dtype).type])


@pytest.fixture
def small_parts(monkeypatch):
    """Batches of even these sizes are taken in parts."""
    monkeypatch.setattr(conv_module, "_WINDOW_BYTES", 20_000)


@pytest.mark.parametrize("x_shape, kernel_shape, stride, padding", CASES)
def test_equals_the_plain_convolution(x_shape, kernel_shape, stride, padding, small_parts):
    assert_same(derivatives, *arrays(x_shape, kernel_shape), stride, padding)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("law", [replicas, gradient_of_gradients])
def test_further_transformations(law, stride, small_parts):
    assert_same(law, *arrays((5, 7, 7, 8), (3, 3, 8, 4)), stride, ONE)


@pytest.mark.parametrize("stride", [1, 2])
def test_is_exact_in_float64(stride, small_parts):
    with jax.enable_x64(True):
        assert_same(derivatives, *arrays((5, 7, 7, 8), (3, 3, 8, 4), jnp.float64), stride, ONE)


@pytest.mark.parametrize("stride", [1, 2])
def test_keeps_bfloat16(stride, small_parts):
    assert_same(derivatives, *arrays((5, 7, 7, 8), (3, 3, 8, 4), jnp.bfloat16), stride, ONE)


def test_only_cpus_differ_from_the_plain_convolution(monkeypatch):
    x, kernel = arrays((2, 8, 8, 8), (3, 3, 8, 8))
    program = lambda: str(jax.make_jaxpr(partial(derivatives, conv))(x, kernel))
    on_cpu = program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere = program()
    assert "dot_general" in on_cpu
    assert "dot_general" not in elsewhere


def test_the_layer_is_that_of_flax_without_bias():
    x, _ = arrays((2, 8, 8, 3), (1, 1, 1, 1))
    ours, theirs = (
        layer(5, (3, 3), 2, padding="SAME", name="first")
        for layer in (Conv, partial(nn.Conv, use_bias=False))
    )
    variables = ours.init(jax.random.key(0), x)
    assert_close(variables, theirs.init(jax.random.key(0), x), 0)
    assert_close(ours.apply(variables, x), theirs.apply(variables, x), 1e-6)
