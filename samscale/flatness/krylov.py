"""Extreme eigenpairs with residuals, by Lanczos with thick restarts."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from samscale.flatness import lanczos
from samscale.flatness.lanczos import ROOM, Basis
from samscale.flatness.operators import Operator


def _both(values, k):
    """The k - 1 largest and the smallest, then in turn from either end."""
    down = np.argsort(-values, kind="stable")
    if len(down) < k:
        return down
    rest = down[k - 1 : -1]
    turns = np.stack([rest, rest[::-1]], 1).ravel()[: len(rest)]
    return np.concatenate([down[: k - 1], down[-1:], turns])


ENDS = {
    "largest": lambda values, k: np.argsort(-values, kind="stable"),
    "smallest": lambda values, k: np.argsort(values, kind="stable"),
    "magnitude": lambda values, k: np.argsort(-np.abs(values), kind="stable"),
    "both": _both,
}


class Eigenpairs(NamedTuple):
    """In the order asked for; some eigenvalue lies within $\\|A q - \\theta q\\|$ of each."""

    values: np.ndarray  # (k,)
    vectors: jax.Array  # (k, size), rows of length 1
    residuals: np.ndarray  # (k,), of the vectors as they are, by a product each
    products: int  # with the operator
    converged: bool  # as far as Lanczos tells
    next: float  # and as far, no eigenvalue left out comes before it; NaN where none is known


def eigenpairs(
    op: Operator,
    key,
    k: int = 1,
    which: str = "largest",
    tolerance: float | Sequence[float] = 1e-3,
    max_basis: int = ROOM,
    max_products: int = 1000,
    floor: float = 0.0,
) -> Eigenpairs:
    r"""``k`` extreme eigenpairs, by Lanczos with thick restarts (Wu and Simon, 2000).

    Stops when each residual that Lanczos expects is at most ``tolerance`` times its eigenvalue, or
    ``floor``, or at the rounding of the largest; for separated eigenvalues the error is about the
    square of that. Residuals that are given are measured at the end: vectors of a basis that is
    orthogonal to $\sqrt\epsilon$ have some $\sqrt\epsilon \|A\|$, whatever the tolerance.
    ``which``: largest, smallest (most negative), magnitude, or both: the k - 1 largest, then the
    smallest, from one basis. ``tolerance``: of all, or of each. Memory: ``max_basis + 1`` vectors,
    at least 2 k + 9; cost: one product a step, and one a pair, ``products`` in all. A multiple
    eigenvalue is found as often as it is asked for only once the space is exhausted. Raises
    ``ValueError`` for a bad choice.
    """
    if which not in ENDS:
        raise ValueError(f"which={which!r}: must be one of {sorted(ENDS)}")
    if not 1 <= k <= op.size:
        raise ValueError(f"k={k}: must be between 1 and {op.size}, the parameters")
    if np.shape(tolerance) not in ((), (k,)):
        raise ValueError(f"tolerance={tolerance}: must be one number, or {k}, one of each")
    steps = min(op.size, max(max_basis, 2 * k + 8))
    basis, filled, products = _drawn(op, key, steps), 0, 0
    while True:
        until = min(max(4, filled + max(2, filled // 4)), steps)  # the host looks, not too often
        basis = lanczos.extend(basis, op, key, filled, until, products)
        products, filled = products + until - filled, until
        values, inside, residuals = lanczos.decomposed(basis, filled)
        order = ENDS[which](values, k)
        beyond = _first_left_out(values, residuals, order[k:], which)
        order = order[:k]
        rounding = np.finfo(np.dtype(op.dtype)).eps * np.abs(values).max(initial=0)
        residuals, least = np.maximum(residuals, rounding), max(floor, 100 * rounding)
        asked = np.broadcast_to(tolerance, k)[: len(order)] * np.abs(values[order])
        good = residuals[order] <= np.maximum(asked, least)
        converged = filled == op.size or (len(order) == k and bool(good.all()))
        if converged or (products + k >= max_products and len(order) == k):
            turn = np.zeros((len(order), steps + 1), op.dtype)
            turn[:, :filled] = inside[:, order].T
            values, vectors = values[order], lanczos.combined(turn, basis.rows)
            residuals = np.maximum(_residuals(basis, op, key, values, vectors), rounding)
            return Eigenpairs(values, vectors, residuals, products + k, converged, beyond)
        if filled == steps:
            kept = ENDS[which](values, k)[: min(k + (steps - k) // 2, steps - 1)]
            basis = _restarted(basis, values[kept], inside[:, kept])
            filled = len(kept)


def bracketed(
    op: Operator, key, near, within: float, most: float, others=math.inf, **how
) -> Eigenpairs:
    r"""The largest eigenpair, where all eigenvalues are at most ``most``, but one ``others``.

    ``near``: (size,), of length 1. By a product, its $\theta = v^\top A v$ and $r = \|A v - \theta
    v\|$ put the largest eigenvalue between $\theta$ and most, or $\theta + r^2 / (\theta - others)$
    (Kato, 1949, doi:10.1143/JPSJ.4.334). Where that is at most ``within`` times $\theta$, v is
    the answer, its residual no less than r; else it is searched for, as by ``eigenpairs``.
    """
    value, residual = map(float, _rayleigh(op, near))
    error = most - value
    if value > others:
        error = min(error, residual**2 / (value - others))
    if error <= within * value:
        error = np.array([max(residual, error)])
        return Eigenpairs(np.array([value]), near[None], error, 1, True, others)
    found = eigenpairs(op, key, **how)
    return found._replace(products=found.products + 1)


@jax.jit
def _rayleigh(op, v):
    bent = op(v)
    value = v @ bent
    return value, jnp.linalg.norm(bent - value * v)


def _first_left_out(values, residuals, order, which):
    """Its value, as far on the side of those that are not as it may be."""
    if not len(order):
        return math.nan
    value, sides = values[order[0]], {"largest": 1, "smallest": -1, "both": 1}
    return float(value + sides.get(which, np.sign(value)) * residuals[order[0]])


@functools.partial(jax.jit, static_argnames="steps")
def _drawn(op, key, steps):
    return lanczos.start(op, jax.random.normal(key, (op.size,), op.dtype), steps)


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


def _residuals(basis: Basis, op, key, values, vectors):
    r"""$\|A q - \theta q\|$: what a step of Lanczos from q alone leaves, in a basis to write to."""
    found = []
    for value, q in zip(values, vectors, strict=True):
        basis = lanczos.extend(_alone(basis, q), op, key, 0, 1)
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
    projected = (
        jnp.zeros_like(basis.projected)
        .at[jnp.arange(k), jnp.arange(k)]
        .set(values.astype(basis.rows.dtype))
    )
    return Basis(rows, projected, basis.left, jnp.array(True), jnp.array(False))
