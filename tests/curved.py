"""A small smooth network and all its dense curvature, for the flatness tests."""

import functools

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from samscale.flatness import output_space

N, CLASSES = 24, 3


def outputs(params, batch):
    return jnp.tanh(batch["x"] @ params["w"] + params["b"][None]) @ params["v"]


def criterion(z, batch):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), batch["y"][:, None], -1)[:, 0]


def losses(params, batch):
    return criterion(outputs(params, batch), batch)


def point(dtype=jnp.float64, seed=0):
    """Parameters and data."""
    k = jax.random.split(jax.random.key(seed), 5)
    draw = lambda key, *shape: jax.random.normal(key, shape, dtype)
    params = {"w": draw(k[0], 4, 5), "b": draw(k[1], 5), "v": draw(k[2], 5, CLASSES)}
    return params, {"x": draw(k[3], N, 4), "y": jax.random.randint(k[4], (N,), 0, CLASSES)}


def least_squares(w, batch):
    """At interpolation: Hessians of examples are x x^T."""
    return (batch["x"] @ w - batch["y"]) ** 2 / 2


@functools.partial(jax.jit, static_argnums=0)
def hessians(losses, params, data):
    """(n, P, P), of each example."""
    flat, tree = ravel_pytree(params)

    def one(example):
        batch = jax.tree.map(lambda a: a[None], example)
        return jax.hessian(lambda w: losses(tree(w), batch)[0])(flat)

    return jax.vmap(one)(data)


@jax.jit
def gauss_newtons(params, data):
    """(n, P, P), of each example."""
    flat, tree = ravel_pytree(params)
    J = jax.jacrev(lambda w: outputs(tree(w), data))(flat)

    def bend(z, example):
        batch = jax.tree.map(lambda a: a[None], example)
        return jax.hessian(lambda z: criterion(z[None], batch)[0])(z)

    S = jax.vmap(bend)(outputs(params, data), data)
    return jnp.einsum("ncp,ncd,ndq->npq", J, S, J)


def power(matrices, k):
    return jnp.linalg.matrix_power(matrices, k)


def regression(examples=12, features=3):
    """A point at interpolation, its data and the Hessians of its examples."""
    x = jax.random.normal(jax.random.key(0), (examples, features))
    w = jnp.ones(features)
    return w, {"x": x, "y": x @ w}, jnp.einsum("np,nq->npq", x, x)


def few(n):
    """The network at n of its examples, and its blocks."""
    params, data = point()
    data = jax.tree.map(lambda a: a[:n], data)
    return params, data, output_space.blocks(outputs, criterion, params, data)
