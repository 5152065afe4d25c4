r"""Gauss-Newton matrices from the side of the outputs, where their vectors are short.

$\frac1n \sum_i G_i^k = L L^\top$ with $L = J^\top R / \sqrt n$ and $R_i R_i^\top = S_i (B_i
S_i)^{k-1}$, in the letters of ``output_space``. The nonzero eigenvalues are those of $L^\top L$, of
nC numbers an axis: the whole spectrum where these are few, Lanczos with short vectors where not.
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
from samscale.flatness.operators import Operator
from samscale.flatness.output_space import Blocks, bends


class Halves(NamedTuple):
    r"""$S_i^{1/2}$, and the eigenvalues of each $G_i$, those of $S_i^{1/2} B_i S_i^{1/2}$."""

    root: np.ndarray  # (n, C, C)
    values: np.ndarray  # (n, C), ascending
    vectors: np.ndarray  # (n, C, C), columns
    dtype: np.dtype

    def of_power(self, k: int):
        """(n, C, C): the R of order k."""
        turned = self.vectors * self.values[:, None] ** ((k - 1) / 2)
        return (self.root @ turned).astype(self.dtype)


def halves(blocks: Blocks) -> Halves | None:
    """None unless all $S_i$ are positive semi-definite, to rounding. In float64, on the host."""
    root = _root(blocks.bend)
    if root is None:
        return None
    values, vectors = np.linalg.eigh(root @ np.asarray(blocks.gram, np.float64) @ root)
    return Halves(root, values.clip(0), vectors, np.dtype(blocks.gram.dtype))


def operator(outputs, params, data, half, batch_size: int | None = None) -> Operator:
    r"""$L^\top L$ (nC, nC), by a backward and a forward pass of all examples a product.

    ``half``: R; ``batch_size``: how many examples at a time, as of ``examples.passes``.
    """
    at = pure(outputs), params, data, half
    return Operator(Partial(_Dual(batch_size), *at), half[..., 0].size, half.dtype)


def of_batches(outputs, params, data, half, rows) -> Operator:
    r"""That of each batch by itself, side by side; ``rows`` (m, B): the examples of each.

    Its largest eigenvalue is that of the sharpest batch.
    """
    taken, halves = jax.tree.map(lambda a: a[rows], (data, half))
    size = halves[..., 0].size
    return Operator(Partial(_of_batches, pure(outputs), params, taken, halves), size, half.dtype)


def lifted(outputs, params, data, half, y, batch_size: int | None = None):
    r"""$L y / \|L y\|$ (P,): what an eigenvector of ``operator`` is in the space of parameters."""
    with jax.default_matmul_precision("highest"):
        return _lifted(pure(outputs), params, data, half, y, batch_size)


def eigenvalues(outputs, criterion, params, data, chunk: int = 64):
    r"""The largest min(nC, P) eigenvalues of the Gauss-Newton matrix, exactly: all that are not 0.

    ``outputs(params, batch)``: (n, C); ``criterion(outputs, batch)``: (n,). Costs nC products,
    ``chunk`` at a time, and an eigendecomposition, for up to some thousand outputs in all. Needs
    S positive semi-definite, as for cross entropy and squared loss; raises ``ValueError`` where it
    is not, and for more than 8192 outputs.
    """
    z = check("outputs", outputs, params, data, ndim=2)
    check("criterion", criterion, z, data)
    if z.size > 8192:
        raise ValueError(f"data: must be at most 8192 outputs in all, not {z.size}; take fewer")
    root = _root(bends(outputs, criterion, params, data))
    if root is None:
        raise ValueError("criterion: must bend up in the outputs, everywhere")
    gram = _columns(operator(outputs, params, data, root.astype(z.dtype)), chunk)
    values = np.linalg.eigvalsh(np.asarray(gram + gram.T, np.float64) / 2)[::-1]
    return values[: min(z.size, jax.eval_shape(lambda p: ravel_pytree(p)[0], params).size)]


@dataclasses.dataclass(frozen=True)  # equal where its parts are, so that programs are shared
class _Dual:
    batch_size: int | None

    def __call__(self, outputs, params, data, half, y):
        forward, back = passes(outputs, params, data, self.batch_size)
        z = forward(back(_times(half, y.reshape(half.shape[:-1]))))
        return (_times(half.mT, z) / count(data)).ravel()


def _of_batches(outputs, params, groups, halves, y):
    one = lambda at: _Dual(None)(outputs, params, *at)
    return jax.lax.map(one, (groups, halves, y.reshape(halves.shape[:-1]))).ravel()


@partial(jax.jit, static_argnames="batch_size")
def _lifted(outputs, params, data, half, y, batch_size):
    _, back = passes(outputs, params, data, batch_size)
    v = ravel_pytree(back(_times(half, y.reshape(half.shape[:-1]))))[0]
    length = jnp.linalg.norm(v)
    return v / jnp.where(length > 0, length, 1)


@partial(jax.jit, static_argnames="chunk")
def _columns(op, chunk):
    return jax.lax.map(op, jnp.eye(op.size, dtype=op.dtype), batch_size=chunk)


def _times(matrices, y):
    """Each (C, C) times its row of y (n, C)."""
    return jnp.einsum("ncd,nd->nc", matrices, y)


def _root(bend):
    values, turn = np.linalg.eigh(np.asarray(bend, np.float64))
    if values.min() < -1e-5 * np.abs(values).max():
        return None
    return (turn * np.sqrt(values.clip(0))[:, None]) @ turn.swapaxes(1, 2)
