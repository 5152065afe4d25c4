"""Convolutions with gradients made for CPUs equal the plain ones, however they are transformed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from samscale.models import conv as module
from samscale.models.conv import Conv, conv

SHAPES = {  # x, kernel, strides, padding
    "few channels": ((5, 9, 8, 3), (3, 3, 3, 5), 1, "SAME"),
    "by rows": ((5, 9, 8, 16), (3, 3, 16, 24), 1, "SAME"),
    "by rows, strided": ((3, 28, 28, 16), (3, 3, 16, 24), 2, ((1, 1), (1, 1))),
    "projection": ((3, 7, 7, 4), (1, 1, 4, 6), 2, "SAME"),
    "stem": ((3, 15, 14, 3), (7, 7, 3, 5), 2, ((3, 3), (3, 3))),
    "no padding": ((3, 7, 7, 16), (3, 3, 16, 24), 1, "VALID"),
    "lopsided": ((2, 7, 7, 3), (3, 2, 3, 4), 1, ((4, 0), (0, 5))),
}
TOLERANCE = {"bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-12}
every = pytest.mark.parametrize("x, kernel, strides, padding", SHAPES.values(), ids=SHAPES)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2**12)  # several, the last one padded


def plain(x, kernel, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def normal(seed, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def losses(strides, padding):
    """Of x and the kernel; curved, so that second derivatives mix both."""
    return [
        lambda x, kernel, c=c: jnp.sin(c(x, kernel, (strides,) * 2, padding)).sum()
        for c in (conv, plain)
    ]


def assert_same(ours, theirs, tolerance=TOLERANCE["float32"]):
    """Up to rounding: relative to the largest entry, as sums round."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def hessian_vector_product(loss):
    return lambda *at: jax.jvp(jax.grad(loss, (0, 1)), at, jax.tree.map(jnp.cos, at))


@every
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_value_and_gradients_are_those_of_lax(x, kernel, strides, padding, dtype):
    with jax.enable_x64(dtype == "float64"):
        x, kernel = normal(0, x, dtype), normal(1, kernel, dtype)

        def both(c):
            y, pull = jax.vjp(lambda *at: c(*at, (strides,) * 2, padding), x, kernel)
            return y, pull(jnp.cos(y))

        assert_same(jax.jit(both, static_argnums=0)(conv), both(plain), TOLERANCE[dtype])


@every
def test_hessian_vector_products_are_those_of_lax(x, kernel, strides, padding):
    at = normal(0, x), normal(1, kernel)
    ours, theirs = (jax.jit(hessian_vector_product(f))(*at) for f in losses(strides, padding))
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["few channels", "by rows, strided"])
@pytest.mark.parametrize("axes", [(None, 0), (1, None), (1, 0)], ids=str)
def test_mapped_gradients_are_single_ones(name, axes):
    x, kernel, strides, padding = SHAPES[name]
    gradient = jax.grad(losses(strides, padding)[0], (0, 1))
    at = normal(0, x), normal(1, kernel)
    many = [
        a if axis is None else jnp.stack([a, 2 * a], axis) for a, axis in zip(at, axes, strict=True)
    ]
    ours = jax.jit(jax.vmap(gradient, axes))(*many)
    for i in (0, 1):
        one = [a if axis is None else (i + 1) * a for a, axis in zip(at, axes, strict=True)]
        assert_same([g[i] for g in ours], jax.jit(gradient)(*one))


def test_gradients_go_through_a_map():
    x, kernels = normal(0, (2, 6, 6, 3)), normal(1, (2, 3, 3, 3, 4))
    ours, theirs = (
        jax.jit(jax.grad(lambda *at, f=f: jax.vmap(f, (None, 0))(*at).sum(), (0, 1)))(x, kernels)
        for f in losses(1, "SAME")
    )
    assert_same(ours, theirs)


def test_a_gradient_of_a_gradient_is_that_of_lax():
    at = normal(0, (3, 7, 7, 3)), normal(1, (3, 3, 3, 4))

    def squared(loss):
        return lambda *at: sum((g**2).sum() for g in jax.grad(loss, (0, 1))(*at))

    ours, theirs = (jax.jit(jax.grad(squared(f), (0, 1)))(*at) for f in losses(2, "SAME"))
    assert_same(ours, theirs)


def test_the_layer_is_flax_without_bias():
    x = normal(0, (2, 7, 7, 3))
    ours, theirs = (layer(4, (3, 3), strides=2) for layer in (Conv, nn.Conv))
    variables = ours.init(jax.random.key(1), x)
    kernel = theirs.init(jax.random.key(1), x)["params"]["kernel"]
    np.testing.assert_array_equal(variables["params"].pop("kernel"), kernel)
    assert variables["params"] == {}
    at = {"kernel": kernel, "bias": jnp.zeros(4)}
    assert_same(ours.apply({"params": {"kernel": kernel}}, x), theirs.apply({"params": at}, x))


def test_a_dilated_layer_is_left_to_lax():
    x = normal(0, (2, 9, 9, 4))
    knobs = {"kernel_dilation": 2, "feature_group_count": 2}
    ours, theirs = Conv(6, (3, 3), **knobs), nn.Conv(6, (3, 3), use_bias=False, **knobs)
    variables = ours.init(jax.random.key(1), x)
    assert_same(ours.apply(variables, x), theirs.apply(variables, x))


def test_other_devices_compile_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = normal(0, (2, 7, 7, 3)), normal(1, (3, 3, 3, 4))
    names = {e.primitive.name for e in jax.make_jaxpr(conv)(x, kernel).eqns}
    assert names == {"conv_general_dilated"}
