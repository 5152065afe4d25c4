"""Numbers of half precision have no room for squares and sums: these are taken in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale.flatness import ball, landscape, noise, path, paths

KEY = jax.random.key(0)
HALF = [jnp.float16, jnp.bfloat16]
half = pytest.mark.parametrize("dtype", HALF)


def line_of(dtype, size=1.0):
    """Weights of few digits, inputs, and a loss that is computed in the dtype of the weights."""
    params = {"w": jnp.array([0.5, -1.0, 0.25], dtype)}
    x = jnp.arange(600.0, dtype=jnp.float32).reshape(200, 3) % 7 - 3
    data = {"x": x.astype(dtype), "y": (x[:, 0] * size).astype(dtype)}
    return losses, params, data


def losses(params, batch):
    return (batch["x"] @ params["w"] - batch["y"]) ** 2


def in_single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


@half
def test_filters_have_the_lengths_of_those_of_the_weights(dtype):
    params = {"k": jnp.full((300, 2), 30.0, dtype), "b": jnp.full(300, 30.0, dtype)}
    found = landscape.filter_normalized(landscape.direction(KEY, params), params, "whole")
    for name, axis in (("k", 0), ("b", None)):
        assert found[name].dtype == dtype
        lengths = np.linalg.norm(np.asarray(found[name], np.float64), axis=axis)
        np.testing.assert_allclose(lengths, 30 * 300**0.5, rtol=1e-2)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_so_they_have_where_squares_of_float32_vanish_or_overflow(size):
    params = {"k": jnp.full((4, 2), size, jnp.float32)}
    found = landscape.filter_normalized({"k": jnp.ones((4, 2))}, params)["k"]
    np.testing.assert_allclose(found, params["k"], rtol=1e-6)


@half
def test_a_sum_of_losses_does_not_overflow(dtype):
    losses, params, data = line_of(dtype, size=40.0)  # 200 losses of some thousands
    mean = landscape.mean_loss(losses, params, data, batch_size=64)
    each = np.asarray(losses(params, data), np.float64)
    assert mean.dtype == jnp.float32
    rounding = float(jnp.finfo(dtype).eps)  # of a loss: compiled, it may have more digits
    np.testing.assert_allclose(mean, each.mean(), rtol=rounding)
    found = landscape.line(losses, params, params, data, [0.0, 0.5])
    np.testing.assert_allclose(found[0], each.mean(), rtol=rounding)


@half
def test_measures_of_weights_of_half_precision_are_near_those_of_single(dtype):
    losses, params, data = line_of(dtype, size=40.0)  # squares of gradients are beyond float16
    end = jax.tree.map(lambda w: w + 0.5, params)
    middle = paths.bezier(losses, params, end, data, KEY, steps=3)
    assert {w.dtype for w in jax.tree.leaves(middle)} == {jnp.dtype(dtype)}

    def numbers(params, end, data):
        return [
            ball.sam_gap(losses, params, data, 0.5).rise,
            noise.batch_sharpness(losses, params, data, KEY, 8, draws=4).value,
            *path.along(losses, params, end, data, parts=2),
            landscape.mean_loss(losses, paths.bezier(losses, params, end, data, KEY, 3), data),
        ]

    single = numbers(*in_single((params, end, data)))
    near = 20 * float(jnp.finfo(dtype).eps)  # a rise is a difference of losses that are rounded
    np.testing.assert_allclose(numbers(params, end, data), single, rtol=near)


def test_nothing_needs_a_compiler():
    at = line_of(jnp.float32)
    compute = lambda: [
        ball.sam_gap(*at, 0.5).rise,
        ball.average_case(*at, KEY, sigma=0.1, draws=2).value,
        *landscape.line(at[0], at[1], at[1], at[2], [0.0, 0.5]),
    ]
    compiled = compute()
    with jax.disable_jit():
        np.testing.assert_allclose(compute(), compiled, rtol=1e-5)
