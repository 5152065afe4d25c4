r"""Lanczos from a vector: an orthonormal basis, and what an operator looks like in it.

The basis is kept whole, row by row, and its orthogonality is *measured*, one product of the basis
with a vector, every other step while it is far from lost and every step else. Two vectors in a row
are orthogonalized again where it is lost beyond $\sqrt\epsilon$, which keeps eigenvalues right to
$\epsilon$ (Simon, 1984, doi:10.1090/S0025-5718-1984-0725988-X); twice where much of the vector is
lost ("twice is enough", Parlett). So no eigenvalue is found twice,
and where the space is exhausted, as the range of an overparameterized network's Hessian may be, a
fresh direction takes over instead of normalized rounding.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from samscale.flatness.operators import Operator
from samscale.sharpness.draws import signs

ROOM = 32  # rows of a basis, unless told: of one shape, programs are shared


class Basis(NamedTuple):
    """Row j + 1 is what A adds to row j; column j of ``projected`` holds its components below."""

    rows: jax.Array  # (steps + 1, size), orthonormal as far as they are filled, zero beyond
    projected: jax.Array  # (steps + 1, steps + 1); the upper triangle of rows A rows^T
    left: jax.Array  # () how much of A times the last row no row holds, the next one apart
    watch: jax.Array  # () bool, whether the next row's orthogonality is to be measured
    again: jax.Array  # () bool, whether it is to be restored whatever is measured


class Ritz(NamedTuple):
    r"""$\hat v^\top f(A) \hat v \approx$ the sum of weights times f(values)."""

    values: np.ndarray  # (m,)
    weights: np.ndarray  # (m,), their sum is 1
    found: np.ndarray  # (j,): which values are eigenvalues, as far as Lanczos tells, of the largest
    vectors: jax.Array  # (j, size), theirs


def tridiagonal(op: Operator, v, steps: int):
    r"""Lanczos from a vector v: the projected matrix (m, m), m = min(steps, size), as NumPy.

    With eigenvalues $\theta_j$ and first components $\tau_j$ of its eigenvectors,
    $v^\top f(A) v / \|v\|^2 \approx \sum_j \tau_j^2 f(\theta_j)$, exact for polynomials up to
    degree 2m - 1.
    """
    steps, room = min(steps, op.size), min(max(steps, ROOM), op.size)
    basis = extend(start(op, v, room), op, jax.random.key(0), 0, steps)
    return matrix(basis.projected, steps)


def ritz(op: Operator, v, steps: int, k: int = 0, tolerance: float = 1e-2) -> Ritz:
    """What ``tridiagonal`` tells, decomposed, and the vectors of up to k large eigenvalues."""
    steps, room = min(steps, op.size), min(max(steps, ROOM), op.size)
    basis = extend(start(op, v, room), op, jax.random.key(0), 0, steps)
    values, inside, residuals = decomposed(basis, steps)
    order = np.argsort(-np.abs(values), kind="stable")[:k]
    turn = np.zeros((len(order), room + 1), op.dtype)
    turn[:, :steps] = inside[:, order].T
    sure = residuals[order] <= tolerance * np.abs(values[order])
    vectors = combined(turn, basis.rows)[sure] if k else jnp.zeros((0, op.size), op.dtype)
    return Ritz(values, inside[0] ** 2, order[sure], vectors)


@functools.partial(jax.jit, static_argnames="steps")
def start(op, v, steps):
    length = jnp.linalg.norm(v)
    v = v / jnp.where(length > 0, length, 1)
    rows = jnp.zeros((steps + 1, op.size), op.dtype).at[0].set(v)
    projected = jnp.zeros((steps + 1, steps + 1), op.dtype)
    return Basis(rows, projected, jnp.zeros((), op.dtype), jnp.array(True), jnp.array(False))


@functools.partial(jax.jit, donate_argnums=0)
def extend(basis: Basis, op: Operator, key, start, stop, products=0) -> Basis:
    """Rows ``start + 1`` to ``stop``, by a product each; ``products`` were taken before."""
    key = jax.random.fold_in(key, products)
    eps = jnp.finfo(op.dtype).eps

    def step(j, basis):
        rows, projected, _, watch, again = basis

        def less(i, carry):  # a loop, so that no copy of either row waits for the product
            w, held = carry
            now = rows[j - i] @ w
            return w - now * rows[j - i], held.at[j - i].set(now)

        none = jnp.zeros_like(rows[:, 0])
        w, held = jax.lax.fori_loop(0, jnp.minimum(j + 1, 2), less, (op(rows[j]), none))
        length, scale = jnp.linalg.norm(w), jnp.abs(projected).max()
        watch = watch | (length <= jnp.sqrt(eps) * jnp.maximum(scale, jnp.abs(held[j])))
        lost = jax.lax.cond(watch, lambda: rows @ w, lambda: none)
        worst = jnp.abs(lost).max()
        mend = again | (worst > jnp.sqrt(eps) * length)
        w, more = _cleared(rows, w, mend, lost)
        w, rest = _cleared(rows, w, mend & (worst > 0.1 * length))
        projected = projected.at[:, j].set(held + more + rest)
        left = jnp.linalg.norm(w)
        exhausted = left <= 10 * eps * jnp.abs(projected).max()
        w = jax.lax.cond(exhausted, lambda: _some(jax.random.fold_in(key, j), w), lambda: w)
        for _ in range(2):
            w, _ = _cleared(rows, w, exhausted)
        again = mend & ~again
        soon = ~watch | again | (~mend & (worst > eps**0.75 * length))
        length = jnp.linalg.norm(w)
        rows = rows.at[j + 1].set(w / jnp.where(length > 0, length, 1))
        return Basis(rows, projected, jnp.where(exhausted, 0, left), soon, again)

    return jax.lax.fori_loop(start, stop, step, basis)


def _cleared(rows, w, yes, held=None):
    """``w`` less what the rows hold of it, and how much that is; where not ``yes``, ``w`` and none.

    One subtraction a branch: nested ones would keep a vector more.
    """

    def clear():
        now = rows @ w if held is None else held
        return w - now @ rows, now

    return jax.lax.cond(yes, clear, lambda: (w, jnp.zeros_like(rows[:, 0])))


def _some(key, like):
    """A direction of length 1: of signs, for normal numbers need six vectors; few may agree."""
    w = (signs if like.size > 1000 else jax.random.normal)(key, like.shape, like.dtype)
    return w / jnp.linalg.norm(w)


@jax.jit
def combined(turn, rows):
    vectors = turn @ rows  # of all rows, whatever their number: one program
    return vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)


def matrix(projected, filled: int):
    """What A looks like in the filled rows, in float64 on the host."""
    upper = np.triu(np.asarray(projected, np.float64)[:filled, :filled])
    return upper + np.triu(upper, 1).T


def decomposed(basis: Basis, filled: int):
    """Values, vectors in the basis (filled, filled) as columns, and residuals."""
    projected, left = jax.device_get((basis.projected, basis.left))
    values, inside = np.linalg.eigh(matrix(projected, filled))
    return values, inside, float(left) * np.abs(inside[-1])
