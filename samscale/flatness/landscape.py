r"""Pictures of a loss: its values on lines and planes through parameters.

A loss is any ``losses(params, batch) -> (n,)``, one number an example, as for the operators; a
picture shows the mean over all examples of ``data``. ``losses`` and ``batch_size`` are compiled in,
so the same function object shares one program; parameters, directions, data, grid and arrays that
a loss holds are arguments of it. Parameters are never moved: each point of the grid is a tree of
its own. Products are taken at the highest precision that the device has for matrix products.
Networks with batch norm are to be given in inference mode.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from samscale.flatness.examples import check, count, pure, summed
from samscale.sharpness import trees

VECTORS = ("zero", "whole")  # what filter normalization makes of biases and scales


class PrincipalPlane(NamedTuple):
    """The plane through ``origin`` that holds most of a trajectory, as ``plane`` takes it."""

    origin: Any
    directions: tuple[Any, Any]  # trees like the parameters, orthonormal
    coordinates: np.ndarray  # (T, 2), of all points along the directions, in units of parameters
    fractions: np.ndarray  # (T,), of the squared distances from the origin; descending, sum 1


def mean_loss(losses: Callable, params, data, batch_size: int | None = None):
    r"""$L(w) = \frac1n \sum_i \ell_i(w)$, () in at least float32, by one forward pass.

    ``batch_size``: how many examples at a time; None, all at once. No example is left out or
    counted twice. Raises ``ValueError`` where it is below 1, or ``data`` has no examples.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, or None for all at once")
    check("losses", losses, params, data)
    total = summed(lambda batch: trees.wide(losses(params, batch)).sum(), data, batch_size)
    return total / count(data)


def direction(key, params):
    """Independent standard normal numbers, a tree of the shapes and dtypes of ``params``."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    draw = lambda key, w: jax.random.normal(key, w.shape, w.dtype)
    return jax.tree.unflatten(tree, map(draw, keys, leaves))


def filter_normalized(direction, params, vectors: str = "zero"):
    r"""$d_f \|w_f\| / \|d_f\|$ for each filter f, so that pictures of rescaled networks compare.

    A filter is what feeds one output unit: all axes of a kernel but the last, as Flax lays them
    out. Arrays of fewer than two axes (biases, scales of norms) have no filters: they stay where
    they are (``vectors="zero"``), or get the norm of the whole array (``"whole"``); normalized
    element by element, nothing but signs would be left of them. A filter of zeros stays zero.
    Norms are those of float32 at least. Raises ``ValueError`` for another ``vectors``, or trees of
    different shapes. Source: Li et al., 2018, arXiv:1712.09913.
    """
    if vectors not in VECTORS:
        raise ValueError(f"vectors={vectors!r}: must be one of {sorted(VECTORS)}")
    alike("direction", direction, params)

    def one(d, w):
        if w.ndim < 2 and vectors == "zero":
            return jnp.zeros_like(d)
        axes = tuple(range(w.ndim - 1)) if w.ndim > 1 else None
        factor = trees.ratio(trees.norms(w, axes), trees.norms(d, axes))
        return (trees.wide(d) * factor).astype(d.dtype)

    return jax.tree.map(one, direction, params)


def line(losses: Callable, params, direction, data, at, batch_size: int | None = None):
    r"""$L(w + s d)$ for each s of ``at`` (k,): losses (k,), by one forward pass each.

    Raises ``ValueError`` where ``direction`` differs from ``params`` in shapes, ``at`` is no list
    of numbers, or ``batch_size`` is below 1.
    """
    alike("direction", direction, params)
    at = numbers("at", at)
    return heights(pure(losses), _moved, (params, (direction,)), data, at[:, None], batch_size)


def plane(
    losses: Callable, params, directions, data, at_first, at_second, batch_size: int | None = None
):
    r"""$L(w + s d + t e)$ of ``directions`` (d, e): losses (k, m), by one forward pass each.

    Rows go with s of ``at_first`` (k,), columns with t of ``at_second`` (m,). Raises ``ValueError``
    where there are not two directions, or for what ``line`` refuses.
    """
    if len(directions) != 2:
        raise ValueError(f"directions: must be two trees, not {len(directions)}")
    for name, one in zip(("directions[0]", "directions[1]"), directions, strict=True):
        alike(name, one, params)
    at_first, at_second = numbers("at_first", at_first), numbers("at_second", at_second)
    mesh = jnp.stack(jnp.meshgrid(at_first, at_second, indexing="ij"), -1)
    given = (params, tuple(directions))
    values = heights(pure(losses), _moved, given, data, mesh.reshape(-1, 2), batch_size)
    return values.reshape(mesh.shape[:2])


def principal_plane(trajectory: Sequence, origin=None) -> PrincipalPlane:
    r"""The two directions along which points of a trajectory are farthest from ``origin``.

    Right singular vectors of the rows $w_t - w_0$ (T, P), from the eigenvectors of the Gram matrix
    (T, T): $2 T^2 P$ operations, in float64 on the host, an array of the parameters at a time. The
    origin is the last point unless given (a tree); points may come from several paths. Nothing is
    centred, so the plane goes through the origin. Each direction points where the coordinate of
    largest magnitude is positive. Large fractions alone tell little: random walks have them too
    (Antognini and Sohl-Dickstein, 2018, arXiv:1806.08805). Raises ``ValueError`` where shapes
    differ, numbers are not finite, or the points span no plane beyond rounding. Source: Li et al.,
    2018, arXiv:1712.09913.
    """
    points = list(trajectory)
    if not points:
        raise ValueError("trajectory: must hold points, and is empty")
    origin = points[-1] if origin is None else origin
    for i, point in enumerate(points):
        alike(f"trajectory[{i}]", point, origin)
    leaves = jax.tree.leaves(origin)
    columns = list(zip(*map(jax.tree.leaves, points), strict=True))  # one tuple an array
    values, inside = _descending(sum(m @ m.T for m in map(_rows, columns, leaves)))
    if len(points) < 2 or values[1] <= _rounding(points, leaves) + 1e-14 * values[0]:
        raise ValueError(f"trajectory: its {len(points)} points span no plane with the origin")
    inside = inside[:, :2]
    inside = inside * np.sign(inside[np.abs(inside).argmax(0), [0, 1]])[None]
    lengths = np.sqrt(values[:2])
    turn = (inside / lengths[None]).T
    rows = [turn @ _rows(column, w) for column, w in zip(columns, leaves, strict=True)]
    directions = tuple(_tree([r[k] for r in rows], origin) for k in (0, 1))
    return PrincipalPlane(origin, directions, inside * lengths[None], values / values.sum())


@functools.partial(jax.jit, static_argnames=("point", "batch_size"))
def heights(losses, point, given, data, at, batch_size):
    """The mean loss at ``point(given, t)`` for each t of the leading axis of ``at``: (k,)."""
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(lambda t: mean_loss(losses, point(given, t), data, batch_size), at)


def numbers(name: str, at):
    """An array (k,), k > 0. Raises ``ValueError``, naming the field, for anything else."""
    at = jnp.asarray(at, float)
    if at.ndim != 1 or not at.size:
        raise ValueError(f"{name}: must be a list of numbers, not of shape {at.shape}")
    return at


def alike(name: str, tree, wanted):
    """Raises ``ValueError``, naming field and array, where trees differ in names or shapes."""
    own, wanted = _shapes(tree), _shapes(wanted)
    for path in [*wanted, *own]:
        if own.get(path) != wanted.get(path):
            found, must = own.get(path, "absent"), wanted.get(path, "absent")
            raise ValueError(f"{name}{path}: its shape must be {must}, not {found}")


def _shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}


def _moved(given, steps):
    params, directions = given
    for k, d in enumerate(directions):
        params = trees.add(params, d, steps[k])
    return params


def _rows(column, origin):
    """One array of all points, away from the origin: (T, size) in float64."""
    stacked = np.stack([np.asarray(w, np.float64).ravel() for w in column])
    return stacked - np.asarray(origin, np.float64).ravel()[None]


def _descending(gram):
    """Eigenvalues (T,) and vectors (T, T), as columns, the largest first."""
    if not np.isfinite(gram).all():
        raise ValueError("trajectory: its numbers must be finite, and are not")
    values, inside = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0), inside[:, ::-1]


def _tree(rows, like):
    """What ``like`` is, of the numbers in ``rows``, one row an array."""
    leaves, tree = jax.tree.flatten(like)
    shaped = [jnp.asarray(r.reshape(w.shape), w.dtype) for r, w in zip(rows, leaves, strict=True)]
    return jax.tree.unflatten(tree, shaped)


def _rounding(points, leaves):
    """The squared length that rounding alone gives the points, in the dtype of the parameters."""
    eps = float(jnp.finfo(jnp.result_type(*leaves)).eps)
    squares = lambda w: float((np.asarray(w, np.float64) ** 2).sum())
    return eps**2 * sum(squares(w) for w in jax.tree.leaves(points))
