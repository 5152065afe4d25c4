r"""Lanczos: eigenpairs with residuals, and the tridiagonal matrix behind a spectral density.

The basis is kept whole, row by row, and its orthogonality is *measured*, one product of the basis
with a vector, every other step while it is far from lost and every step else. Two vectors in a row
are orthogonalized again where it is lost beyond $\sqrt\epsilon$, which keeps eigenvalues right to
$\epsilon$ (Simon, 1984, doi:10.1090/S0025-5718-1984-0725988-X); twice where much of the vector is
lost ("twice is enough", Parlett). So no eigenvalue is found twice,
and where the space is exhausted, as the range of an overparameterized network's Hessian may be, a
fresh direction takes over instead of normalized rounding.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from samscale.flatness.operators import Operator

ROOM = 64  # rows of a basis, unless told: of one shape, programs are shared
ENDS = {
    "largest": lambda values: np.argsort(-values, kind="stable"),
    "smallest": lambda values: np.argsort(values, kind="stable"),
    "magnitude": lambda values: np.argsort(-np.abs(values), kind="stable"),
}


class Eigenpairs(NamedTuple):
    """In the order asked for; some eigenvalue lies within $\\|A q - \\theta q\\|$ of each."""

    values: np.ndarray  # (k,)
    vectors: jax.Array  # (k, size), rows of length 1
    residuals: np.ndarray  # (k,), of the vectors as they are, by a product each
    products: int  # with the operator
    converged: bool  # as far as Lanczos tells


class Ritz(NamedTuple):
    r"""$\hat v^\top f(A) \hat v \approx$ the sum of weights times f(values)."""

    values: np.ndarray  # (m,)
    weights: np.ndarray  # (m,), their sum is 1
    found: np.ndarray  # (j,): which values are eigenvalues, as far as Lanczos tells, of the largest
    vectors: jax.Array  # (j, size), theirs


class Basis(NamedTuple):
    """Row j + 1 is what A adds to row j; column j of ``projected`` holds its components below."""

    rows: jax.Array  # (steps + 1, size), orthonormal as far as they are filled, zero beyond
    projected: jax.Array  # (steps + 1, steps + 1); the upper triangle of rows A rows^T
    left: jax.Array  # () how much of A times the last row no row holds, the next one apart
    watch: jax.Array  # () bool, whether the next row's orthogonality is to be measured
    again: jax.Array  # () bool, whether it is to be restored whatever is measured


def eigenpairs(
    op: Operator,
    key,
    k: int = 1,
    which: str = "largest",
    tolerance: float = 1e-3,
    max_basis: int = ROOM,
    max_products: int = 1000,
    floor: float = 0.0,
) -> Eigenpairs:
    r"""``k`` extreme eigenpairs, by Lanczos with thick restarts (Wu and Simon, 2000).

    Stops when each residual that Lanczos expects is at most ``tolerance`` times its eigenvalue, or
    ``floor``, or at the rounding of the largest; for separated eigenvalues the error is about the
    square of that. Residuals that are given are measured at the end: vectors of a basis that is
    orthogonal to $\sqrt\epsilon$ have some $\sqrt\epsilon \|A\|$, whatever the tolerance.
    ``which``: largest, smallest (most negative) or magnitude. Memory: ``max_basis + 1`` vectors, at
    least 2 k + 9; cost: one product a step, and one a pair, ``products`` in all. A multiple
    eigenvalue is found as often as it is asked for only once the space is exhausted. Raises
    ``ValueError`` for a bad choice.
    """
    if which not in ENDS:
        raise ValueError(f"which={which!r}: must be one of {sorted(ENDS)}")
    if not 1 <= k <= op.size:
        raise ValueError(f"k={k}: must be between 1 and {op.size}, the parameters")
    steps = min(op.size, max(max_basis, 2 * k + 8))
    basis, filled, products = _drawn(op, key, steps), 0, 0
    while True:
        until = min(filled + max(2, filled // 8), steps)  # the host looks up, but not too often
        basis = _extend(basis, op, key, filled, until, products)
        products, filled = products + until - filled, until
        values, inside, residuals = _ritz(basis, filled)
        order = ENDS[which](values)[:k]
        rounding = np.finfo(np.dtype(op.dtype)).eps * np.abs(values).max(initial=0)
        residuals, least = np.maximum(residuals, rounding), max(floor, 100 * rounding)
        good = residuals[order] <= np.maximum(tolerance * np.abs(values[order]), least)
        converged = filled == op.size or (len(order) == k and bool(good.all()))
        if converged or (products + k >= max_products and len(order) == k):
            turn = np.zeros((len(order), steps + 1), op.dtype)
            turn[:, :filled] = inside[:, order].T
            values, vectors = values[order], _combined(turn, basis.rows)
            residuals = np.maximum(_residuals(basis, op, key, values, vectors), rounding)
            return Eigenpairs(values, vectors, residuals, products + k, converged)
        if filled == steps:
            kept = ENDS[which](values)[: min(k + (steps - k) // 2, steps - 1)]
            basis = _restarted(basis, values[kept], inside[:, kept])
            filled = len(kept)


def tridiagonal(op: Operator, v, steps: int):
    r"""Lanczos from a vector v: the projected matrix (m, m), m = min(steps, size), as NumPy.

    With eigenvalues $\theta_j$ and first components $\tau_j$ of its eigenvectors,
    $v^\top f(A) v / \|v\|^2 \approx \sum_j \tau_j^2 f(\theta_j)$, exact for polynomials up to
    degree 2m - 1.
    """
    steps, room = min(steps, op.size), min(max(steps, ROOM), op.size)
    basis = _extend(_start(op, v, room), op, jax.random.key(0), 0, steps)
    return _matrix(basis.projected, steps)


def ritz(op: Operator, v, steps: int, k: int = 0, tolerance: float = 1e-2) -> Ritz:
    """What ``tridiagonal`` tells, decomposed, and the vectors of up to k large eigenvalues."""
    steps, room = min(steps, op.size), min(max(steps, ROOM), op.size)
    basis = _extend(_start(op, v, room), op, jax.random.key(0), 0, steps)
    values, inside, residuals = _ritz(basis, steps)
    order = ENDS["magnitude"](values)[:k]
    turn = np.zeros((len(order), room + 1), op.dtype)
    turn[:, :steps] = inside[:, order].T
    sure = residuals[order] <= tolerance * np.abs(values[order])
    vectors = _combined(turn, basis.rows)[sure] if k else jnp.zeros((0, op.size), op.dtype)
    return Ritz(values, inside[0] ** 2, order[sure], vectors)


@functools.partial(jax.jit, static_argnames="steps")
def _drawn(op, key, steps):
    return _start(op, jax.random.normal(key, (op.size,), op.dtype), steps)


@functools.partial(jax.jit, static_argnames="steps")
def _start(op, v, steps):
    length = jnp.linalg.norm(v)
    v = v / jnp.where(length > 0, length, 1)
    rows = jnp.zeros((steps + 1, op.size), op.dtype).at[0].set(v)
    projected = jnp.zeros((steps + 1, steps + 1), op.dtype)
    return Basis(rows, projected, jnp.zeros((), op.dtype), jnp.array(True), jnp.array(False))


@functools.partial(jax.jit, donate_argnums=0)
def _extend(basis: Basis, op: Operator, key, start, stop, products=0) -> Basis:
    """Rows ``start + 1`` to ``stop``, by a product each; ``products`` were taken before."""
    key = jax.random.fold_in(key, products)
    eps = jnp.finfo(op.dtype).eps

    def step(j, basis):
        rows, projected, _, watch, again = basis
        w = op(rows[j])
        own = rows[j] @ w
        before = jnp.where(j > 0, rows[jnp.maximum(j - 1, 0)] @ w, 0)
        w = w - own * rows[j] - before * rows[jnp.maximum(j - 1, 0)]
        length, scale = jnp.linalg.norm(w), jnp.abs(projected).max()
        watch = watch | (length <= jnp.sqrt(eps) * jnp.maximum(scale, jnp.abs(own)))
        lost = jax.lax.cond(watch, lambda: rows @ w, lambda: jnp.zeros_like(rows[:, 0]))
        worst = jnp.abs(lost).max()
        mend = again | (worst > jnp.sqrt(eps) * length)
        w, more = jax.lax.cond(
            mend,
            lambda: _restored(rows, w, lost, worst > 0.1 * length),
            lambda: (w, jnp.zeros_like(lost)),
        )
        column = more.at[j].add(own).at[jnp.maximum(j - 1, 0)].add(before)
        projected = projected.at[:, j].set(column)
        left = jnp.linalg.norm(w)
        exhausted = left <= 10 * eps * jnp.abs(projected).max()
        w = jax.lax.cond(exhausted, lambda: _fresh(rows, jax.random.fold_in(key, j)), lambda: w)
        again = mend & ~again
        soon = ~watch | again | (~mend & (worst > eps**0.75 * length))
        length = jnp.linalg.norm(w)
        rows = rows.at[j + 1].set(w / jnp.where(length > 0, length, 1))
        return Basis(rows, projected, jnp.where(exhausted, 0, left), soon, again)

    return jax.lax.fori_loop(start, stop, step, basis)


def _restored(rows, w, lost, much):
    """``w`` without what the rows hold of it, and how much that was."""
    return jax.lax.cond(much, lambda: _twice(rows, w, lost), lambda: (w - lost @ rows, lost))


def _twice(rows, w, components):
    w = w - components @ rows
    again = rows @ w
    return w - again @ rows, components + again


def _fresh(rows, key):
    """Some direction that no row has."""
    w = jax.random.normal(key, rows.shape[1:], rows.dtype)
    w = _twice(rows, w, rows @ w)[0]
    length = jnp.linalg.norm(w)
    return w / jnp.where(length > 0, length, 1)  # 0 where the rows span everything


@functools.partial(jax.jit, donate_argnums=0)
def _turned(rows, turn):
    """Rows 0 ... k - 1 become ``turn`` (k, steps) times the rows, row k the last; in place."""
    k, steps = turn.shape
    block = -(-rows.shape[1] // 16)  # columns at a time: memory for a sixteenth of the rows

    def new(part):
        return jnp.zeros_like(part).at[:k].set(turn @ part[:-1]).at[k].set(part[-1])

    def body(i, rows):
        part = jax.lax.dynamic_slice(rows, (0, i * block), (steps + 1, block))
        return jax.lax.dynamic_update_slice(rows, new(part), (0, i * block))

    whole = rows.shape[1] // block
    rows = jax.lax.fori_loop(0, whole, body, rows)
    if rest := rows.shape[1] % block:
        rows = rows.at[:, -rest:].set(new(rows[:, -rest:]))
    return rows


@jax.jit
def _combined(turn, rows):
    vectors = turn @ rows  # of all rows, whatever their number: one program
    return vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)


def _residuals(basis: Basis, op, key, values, vectors):
    r"""$\|A q - \theta q\|$: what a step of Lanczos from q alone leaves, in a basis to write to."""
    found = []
    for value, q in zip(values, vectors, strict=True):
        basis = _extend(_alone(basis, q), op, key, 0, 1)
        projected, left = jax.device_get((basis.projected, basis.left))
        found.append(math.hypot(left, projected[0, 0] - value))
    return np.array(found)


@functools.partial(jax.jit, donate_argnums=0)
def _alone(basis: Basis, q) -> Basis:
    """A basis of one row, in the place of another."""
    rows, projected = (a.at[:].set(0) for a in (basis.rows, basis.projected))
    return Basis(rows.at[0].set(q), projected, 0 * basis.left, jnp.array(True), jnp.array(False))


def _restarted(basis: Basis, values, inside) -> Basis:
    """The Ritz vectors ``inside`` (steps, k) as the first rows, and the rest to go on with."""
    rows = _turned(basis.rows, jnp.asarray(inside.T, basis.rows.dtype))
    k = len(values)
    projected = jnp.zeros_like(basis.projected).at[jnp.arange(k), jnp.arange(k)].set(values)
    return Basis(rows, projected, basis.left, jnp.array(True), jnp.array(False))


def _matrix(projected, filled: int):
    """What A looks like in the filled rows, in float64 on the host."""
    upper = np.triu(np.asarray(projected, np.float64)[:filled, :filled])
    return upper + np.triu(upper, 1).T


def _ritz(basis: Basis, filled: int):
    """Values, vectors in the basis (filled, filled) as columns, and residuals."""
    projected, left = jax.device_get((basis.projected, basis.left))
    values, inside = np.linalg.eigh(_matrix(projected, filled))
    return values, inside, float(left) * np.abs(inside[-1])
