"""Losses whose rise in a ball is known, for the tests of sharpness."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import family

KEY = jax.random.key(0)
ROOT = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
NOTHING = np.zeros((12, 1))  # twelve examples without a content


def quadratic(w, batch):
    """1/2 w'Aw for all examples, A = ROOT'ROOT."""
    a = ROOT.T @ ROOT
    return jnp.full(len(batch), w @ jnp.asarray(a, w.dtype) @ w / 2)


def linear(w, batch):
    return batch @ w


def relu(params, batch):
    x, y = batch
    return (jax.nn.relu(x @ params["in"]) @ params["out"] - y) ** 2


def relu_at(n=12):
    """A network of doubles, one weight of which is 0, and its data."""
    key = jax.random.split(jax.random.key(3), 4)
    draw = lambda k, *shape: jax.random.normal(k, shape, jnp.float64)
    params = {"in": draw(key[0], 3, 4).at[1, 2].set(0), "out": draw(key[1], 4)}
    return params, (draw(key[2], n, 3), draw(key[3], n))


@functools.cache
def near_minimum():
    """The same after descent, which holds that weight at 0."""
    params, data = relu_at()
    slope = jax.grad(lambda params: relu(params, data).mean())

    def descended(_, params):
        params = jax.tree.map(lambda w, g: w - 0.02 * g, params, slope(params))
        return {**params, "in": params["in"].at[1, 2].set(0)}

    return family.jit(lambda p: jax.lax.fori_loop(0, 300, descended, p))(params), data
