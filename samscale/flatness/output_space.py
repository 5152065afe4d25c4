r"""The Gauss-Newton matrix in closed form, through what it does in the space of outputs.

With Jacobians $J_i$ (C, P) and Hessians $S_i$ (C, C) of the criterion in the outputs of example i,
all that $G_i = J_i^\top S_i J_i$ does happens in C dimensions: with $B_i = J_i J_i^\top$,

$$G_i^k = J_i^\top S_i (B_i S_i)^{k-1} J_i.$$

Moments of any order then cost a forward and a backward pass of all examples together. At
interpolation, where the
criterion's slope vanishes, $G_i$ is the Hessian of example i.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from samscale.flatness.examples import check, count, passes, pure
from samscale.flatness.operators import Operator, gauss_newton


class Blocks(NamedTuple):
    """What examples do in the space of outputs."""

    gram: jax.Array  # (n, C, C), J J^T of each example
    bend: jax.Array  # (n, C, C), Hessians of the criterion in the outputs


def blocks(outputs, criterion, params, data, chunk: int = 0) -> Blocks:
    """``chunk`` examples at a time, a vector of R^P for each (0: as many as 8 MiB hold).

    ``outputs(params, batch)``: (n, C); ``criterion(outputs, batch)``: (n,). Raises ``ValueError``
    for other shapes.
    """
    size = sum(w.size for w in jax.tree.leaves(params))
    check("criterion", criterion, check("outputs", outputs, params, data, ndim=2), data)
    chunk = chunk or max(1, 2**21 // size)
    with jax.default_matmul_precision("highest"):
        return _blocks(pure(outputs), pure(criterion), params, data, chunk)


def moments(
    outputs, params, data, blocks: Blocks, coefficients, whole=(), batch_size: int | None = None
) -> Operator:
    r"""$E[\sum_k c_k G_i^k] + \sum_k d_k G^k$, over examples and, d of ``whole``, of their mean G.

    A product costs one forward-mode and one reverse-mode pass, whatever the order over examples,
    and as many as the highest order of the whole, ``batch_size`` examples at a time (None: all).
    Raises ``ValueError`` for orders beyond 4.
    """
    orders = 5  # one program for all
    if max(len(coefficients), len(whole)) > orders:
        raise ValueError(f"coefficients: must be of orders up to {orders - 1}")
    c, d = (np.zeros(orders, blocks.gram.dtype) for _ in range(2))
    c[: len(coefficients)], d[: len(whole)] = coefficients, whole
    inner = _polynomial(blocks, c) + d[1] * blocks.bend
    top = np.int32(np.flatnonzero(d).max(initial=1))
    flat = jax.eval_shape(lambda p: ravel_pytree(p)[0], params)
    at = pure(outputs), params, data, inner, blocks.bend, d, top, c[0] + d[0]
    return Operator(Partial(_Through(batch_size), *at), flat.size, flat.dtype)


def bends(outputs, criterion, params, data):
    """(n, C, C): the Hessians of the criterion in the outputs, of each example."""
    with jax.default_matmul_precision("highest"):
        return _bends(pure(outputs), pure(criterion), params, data)


def batch_moments(outputs, criterion, params, data, coefficients, rows) -> Operator:
    r"""$\frac1m \sum_B \sum_k c_k G_B^k$, of Gauss-Newton matrices of batches.

    ``rows`` (m, B): the examples of each batch. Powers of a batch's matrix do not happen in C
    dimensions: a product costs K of the matrices of all batches.
    """
    flat = jax.eval_shape(lambda p: ravel_pytree(p)[0], params)
    coefficients = np.asarray(coefficients, flat.dtype)
    taken = jax.tree.map(lambda a: a[rows], data)
    at = pure(outputs), pure(criterion), params, taken
    return Operator(Partial(_of_groups, *at, coefficients), flat.size, flat.dtype)


def forms(outputs, params, data, blocks: Blocks, v, batch_size: int | None = None):
    r"""(n,): $v^\top G_i v$ of each example, by one forward pass."""
    with jax.default_matmul_precision("highest"):
        return _forms(pure(outputs), params, data, blocks.bend, v, batch_size)


@partial(jax.jit, static_argnames="batch_size")
def _forms(outputs, params, data, bend, v, batch_size):
    forward, _ = passes(outputs, params, data, batch_size)
    along = forward(ravel_pytree(params)[1](v))
    return jnp.einsum("nc,ncd,nd->n", along, bend, along)


@jax.jit
def _bends(outputs, criterion, params, data):
    return jax.lax.map(lambda at: _bend(criterion, *at), (outputs(params, data), data))


@partial(jax.jit, static_argnames="chunk")
def _blocks(outputs, criterion, params, data, chunk):
    def one(example):
        batch = jax.tree.map(lambda a: a[None], example)
        z, forward = jax.linearize(lambda params: outputs(params, batch)[0], params)
        back = jax.linear_transpose(forward, params)
        # one after another: a vector that is still in cache costs a tenth of one that is not
        column = lambda e: forward(back(e)[0])
        gram = jax.lax.map(column, jnp.eye(len(z), dtype=z.dtype))
        return Blocks(gram, _bend(criterion, z, example))

    return jax.lax.map(one, data, batch_size=chunk)


def _bend(criterion, z, example):
    """(C, C), of one example, given without its leading axis."""
    batch = jax.tree.map(lambda a: a[None], example)
    return jax.hessian(lambda z: criterion(z[None], batch)[0])(z)


@dataclasses.dataclass(frozen=True)  # equal where its parts are, so that programs are shared
class _Through:
    batch_size: int | None

    def __call__(self, outputs, params, data, inner, bend, whole, top, constant, v):
        """``inner``: (n, C, C), all that needs one pass; ``whole``: what its powers 2 to ``top``
        weigh.
        """
        forward, back = passes(outputs, params, data, self.batch_size)
        bent = partial(jnp.einsum, "ncd,nd->nc")
        mean = lambda tree: jax.tree.map(lambda w: w / count(data), tree)
        along = forward(ravel_pytree(params)[1](v))

        def add(k, carry):
            along, total = carry
            along = forward(mean(back(bent(bend, along))))
            return along, total + jnp.asarray(whole)[k] * bent(bend, along)

        _, total = jax.lax.fori_loop(2, top + 1, add, (along, bent(inner, along)))
        return constant * v + ravel_pytree(mean(back(total)))[0]


def _of_groups(outputs, criterion, params, groups, coefficients, v):
    """By Horner's rule."""

    def add(total, group):
        g = gauss_newton(outputs, criterion, params, group)
        start, rest = coefficients[-1] * v, coefficients[-2::-1]
        return total + jax.lax.scan(lambda u, c: (g(u) + c * v, None), start, rest)[0], None

    return jax.lax.scan(add, jnp.zeros_like(v), groups)[0] / count(groups)


@jax.jit
def _polynomial(blocks, coefficients):
    r"""(n, C, C): $\sum_{k \ge 1} c_k S (B S)^{k-1}$, between $J^\top$ and J."""
    power, total = blocks.bend, coefficients[1] * blocks.bend
    with jax.default_matmul_precision("highest"):
        for k in range(2, len(coefficients)):
            power = blocks.bend @ blocks.gram @ power
            total = total + coefficients[k] * power
    return total
