"""Our batch norm is Flax's: values, statistics, first and second derivatives, also mapped."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale.models.norm import BatchNorm

KNOBS = {"momentum": 0.9, "epsilon": 1e-5}


def outcome(layer, x, train, dtype=None):
    """What a layer does to x, and the gradient and Hessian-vector product of a loss behind it."""
    model = layer(use_running_average=not train, dtype=dtype, **KNOBS)
    keys = jax.random.split(jax.random.key(1), 4)
    shape = x.shape[-1:]
    params = {
        name: jax.random.normal(k, shape)
        for name, k in zip(("scale", "bias"), keys[:2], strict=True)
    }
    stats = {"mean": jax.random.normal(keys[2], shape), "var": jnp.exp(params["bias"])}
    target = jax.random.normal(keys[3], x.shape)

    def loss(params, x):
        variables = {"params": params, "batch_stats": stats}
        y, new = model.apply(variables, x, mutable=["batch_stats"])
        return ((y - target) ** 2).mean(), (y, new)

    gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
    grads, out = gradient(params, x)
    hvp = jax.jvp(lambda *at: gradient(*at)[0], (params, x), (params, x))[1]
    return out, grads, hvp


def close(ours, flax, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), ours, flax)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(8, 5, 4, 3), (7, 6)])
def test_it_is_the_batch_norm_of_flax(shape, train):
    x = 3 * jax.random.normal(jax.random.key(0), shape) + 2
    flax, ours = outcome(nn.BatchNorm, x, train), outcome(BatchNorm, x, train)
    close(ours, flax, rtol=2e-4, atol=2e-5)


def test_in_double_precision_to_its_rounding():
    with jax.enable_x64(True):
        x = 3 * jax.random.normal(jax.random.key(0), (8, 5, 4, 3), jnp.float64) + 2
        close(outcome(BatchNorm, x, True), outcome(nn.BatchNorm, x, True), rtol=1e-9, atol=1e-10)


def test_half_precision_keeps_its_moments_in_float32():
    x = jax.random.normal(jax.random.key(0), (512, 8, 8, 2), jnp.bfloat16) + 4
    (y, new), *_ = outcome(BatchNorm, x, True, jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    expected = 0.1 * x.astype(jnp.float32).mean((0, 1, 2))
    before = 0.9 * jax.random.normal(jax.random.split(jax.random.key(1), 4)[2], (2,))
    close(new["batch_stats"]["mean"] - before, expected, rtol=1e-5)


def test_mapped_equals_looped():
    x = jax.random.normal(jax.random.key(0), (3, 8, 5, 4, 2))
    looped = [outcome(BatchNorm, xi, True) for xi in x]
    mapped = jax.vmap(lambda xi: outcome(BatchNorm, xi, True))(x)
    close(mapped, jax.tree.map(lambda *a: jnp.stack(a), *looped), rtol=1e-4, atol=1e-6)


def test_its_names_and_shapes_are_those_of_flax():
    x = jnp.ones((2, 4, 4, 3))
    trees = [
        layer(use_running_average=False).init(jax.random.key(0), x)
        for layer in (BatchNorm, nn.BatchNorm)
    ]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    close(*trees, rtol=0)
