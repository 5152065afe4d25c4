r"""Paths between two minima: straight lines and their barriers, permuted units, Bezier curves.

Losses, data and precision are those of ``samscale.flatness.landscape``. Along a path t runs from 0
at ``a`` to 1 at ``b``.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import linear_sum_assignment

from samscale.flatness.examples import count, pure
from samscale.flatness.landscape import alike, heights, mean_loss, numbers
from samscale.sharpness import trees

POINTS = 25  # of a barrier, ends included


def interpolation(losses: Callable, a, b, data, at, batch_size: int | None = None):
    r"""$L((1 - t) a + t b)$ for each t of ``at`` (k,): losses (k,), by one forward pass each.

    Raises ``ValueError`` where ``b`` differs from ``a`` in shapes, ``at`` is no list of numbers, or
    ``batch_size`` is below 1.
    """
    alike("b", b, a)
    return heights(pure(losses), _straight, (a, b), data, numbers("at", at), batch_size)


def barrier(losses: Callable, a, b, data, at=None, batch_size: int | None = None):
    r"""$\max_t L(a + t (b - a)) - ((1 - t) L(a) + t L(b))$, (), in units of the loss.

    ``at``: the t to look at; by default 25 of equal distance, ends included, so that the barrier is
    0 at least (and 0 for a convex loss, up to rounding). Costs one forward pass each, and two. NaN
    where a loss is. Raises ``ValueError`` as ``interpolation`` does. Source: Frankle et al., 2020,
    arXiv:1912.05671, above the line between the ends as in Entezari et al., 2022, arXiv:2110.06296.
    """
    at = numbers("at", np.linspace(0, 1, POINTS) if at is None else at)
    along = jnp.concatenate([jnp.array([0, 1], at.dtype), at])
    values = interpolation(losses, a, b, data, along, batch_size)
    t = at.astype(values.dtype)
    return jnp.max(values[2:] - ((1 - t) * values[0] + t * values[1]))


def permuted(params, orders: Sequence):
    """The same function: unit j of hidden layer l is what was unit ``orders[l][j]``.

    ``params``: of an MLP, ``Dense_0 ... Dense_k``; ``orders``: k permutations. Raises
    ``ValueError`` for other parameters, or where an order is no permutation of its layer.
    """
    widths = _widths("params", params)[1:-1]
    if len(orders) != len(widths):
        raise ValueError(f"orders: must be {len(widths)}, one a hidden layer, not {len(orders)}")
    for i, (order, width) in enumerate(zip(orders, widths, strict=True)):
        if not np.array_equal(np.sort(order), np.arange(width)):
            raise ValueError(f"orders[{i}]: must be a permutation of {width} units")
    rows, layers = np.arange(len(params["Dense_0"]["kernel"])), {}
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        columns = np.arange(len(layer["bias"])) if i == len(orders) else np.asarray(orders[i])
        kernel = layer["kernel"][rows][:, columns]
        layers[f"Dense_{i}"] = {"kernel": kernel, "bias": layer["bias"][columns]}
        rows = columns
    return layers


def is_mlp(params) -> bool:
    """Whether ``permuted`` and ``aligned`` take them: ``Dense_0 ... Dense_k``."""
    try:
        _widths("params", params)
    except ValueError:
        return False
    return True


def aligned(a, b):
    r"""``b`` with its hidden units permuted to match those of ``a``: the same function.

    Weight matching: maximizes $\langle w_a, \pi(w_b) \rangle$ over permutations of each hidden
    layer, one layer at a time by an assignment problem given the others, until no layer changes; a
    local maximum, in float64 on the host. $O(width^3)$ a layer and sweep, few sweeps. Deviates from
    the source in where it starts: at the match of incoming weights, layer after layer, instead of
    the identity, so that a mere permutation of ``a`` is undone exactly (but for equal units).
    Raises ``ValueError`` where parameters are not of an MLP (``Dense_0 ... Dense_k``), shapes
    differ or numbers are not finite. Source: Ainsworth et al., 2023, arXiv:2209.04836.
    """
    _widths("a", a)
    alike("b", b, a)
    ours, theirs = _layers("a", a), _layers("b", b)
    orders = [np.arange(kernel.shape[1]) for kernel, _ in ours]  # of the last layer: it stays
    hidden = range(len(orders) - 1)
    for i in hidden:
        orders[i] = linear_sum_assignment(_incoming(ours, theirs, orders, i), maximize=True)[1]
    changed = True
    while changed:
        changed = False
        for i in hidden:
            likeness = _incoming(ours, theirs, orders, i) + _outgoing(ours, theirs, orders, i)
            units, best = linear_sum_assignment(likeness, maximize=True)
            gain = likeness[units, best].sum() - likeness[units, orders[i]].sum()
            if gain > 1e-12 * np.abs(likeness).sum():  # more than rounding, or it may cycle
                orders[i], changed = best, True
    return permuted(b, orders[:-1])


def bezier(
    losses: Callable,
    a,
    b,
    data,
    key,
    steps: int = 1000,
    learning_rate: float = 0.01,
    batch_size: int | None = 128,
):
    r"""The middle point m of a curve $(1-t)^2 a + 2 t (1-t) m + t^2 b$ of low loss, a tree like a.

    Minimizes $E_t L$ over uniform t, one t and one batch a step (drawn with replacement; None, all
    of ``data``), by Adam from the middle of the line. The ends stay. Each step costs a gradient;
    all of them are one compiled loop. Where the loss is symmetric about the line, the start is a
    critical point. Raises ``ValueError`` where shapes differ, or ``steps``, ``learning_rate`` or
    ``batch_size`` are not positive. Source: Garipov et al., 2018, arXiv:1802.10026.
    """
    alike("b", b, a)
    for name, value in [("steps", steps), ("learning_rate", learning_rate)]:
        if not value > 0:
            raise ValueError(f"{name}={value}: must be positive")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, or None for all at once")
    return _bent(pure(losses), a, b, data, key, steps, learning_rate, batch_size)


def along_bezier(losses: Callable, a, middle, b, data, at, batch_size: int | None = None):
    r"""$L((1-t)^2 a + 2 t (1-t) m + t^2 b)$ for each t of ``at`` (k,): losses (k,).

    One forward pass each. Raises ``ValueError`` as ``interpolation`` does, or where ``middle``
    differs from ``a`` in shapes.
    """
    alike("middle", middle, a)
    alike("b", b, a)
    return heights(pure(losses), _curve, (a, middle, b), data, numbers("at", at), batch_size)


@functools.partial(jax.jit, static_argnames="batch_size")
def _bent(losses, a, b, data, key, steps, learning_rate, batch_size):
    n, adam = count(data), optax.adam(learning_rate)
    given, (a, b) = a, jax.tree.map(trees.wide, (a, b))  # a float16 knows no epsilon of Adam
    as_given = lambda tree: jax.tree.map(lambda x, of: x.astype(of.dtype), tree, given)

    def step(i, carry):
        middle, state = carry
        for_t, for_batch = jax.random.split(jax.random.fold_in(key, i))
        batch, t = data, jax.random.uniform(for_t)
        if batch_size is not None and batch_size < n:
            chosen = jax.random.randint(for_batch, (batch_size,), 0, n)
            batch = jax.tree.map(lambda x: x[chosen], data)
        loss = lambda middle: mean_loss(losses, as_given(_curve((a, middle, b), t)), batch)
        updates, state = adam.update(jax.grad(loss)(middle), state)
        return optax.apply_updates(middle, updates), state

    middle = _straight((a, b), jnp.array(0.5))
    with jax.default_matmul_precision("highest"):
        return as_given(jax.lax.fori_loop(0, steps, step, (middle, adam.init(middle)))[0])


def _straight(ends, t):
    return _weighted(ends, (1 - t, t))


def _curve(points, t):
    return _weighted(points, ((1 - t) ** 2, 2 * t * (1 - t), t**2))


def _weighted(points, weights):
    add = lambda *leaves: sum(s.astype(w.dtype) * w for s, w in zip(weights, leaves, strict=True))
    return jax.tree.map(add, *points)


def _widths(name, params):
    """Of all layers, inputs first. Raises ``ValueError`` where ``params`` are of no such MLP."""
    law = f"{name}: must be the parameters of an MLP, Dense_0 ... Dense_k of kernels and biases"
    names = [f"Dense_{i}" for i in range(len(params))] if isinstance(params, dict) else []
    if not names or set(params) != set(names):
        found = sorted(map(str, params)) if isinstance(params, dict) else type(params).__name__
        raise ValueError(f"{law}, not {found}")
    widths = []
    for layer in names:
        parts = params[layer] if isinstance(params[layer], dict) else {}
        shapes = {part: jnp.shape(w) for part, w in parts.items()}
        size = shapes.get("kernel", ())
        fits = len(size) == 2 and (not widths or widths[-1] == size[0])
        if not fits or shapes != {"kernel": size, "bias": size[1:]}:
            raise ValueError(f"{law}, not {layer} of shapes {shapes}")
        widths = [*widths, size[1]] if widths else list(size)
    return widths


def _layers(name, params):
    """Kernels and biases in float64. Raises ``ValueError`` where they are not finite."""
    layers = []
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        layers.append([np.asarray(layer[part], np.float64) for part in ("kernel", "bias")])
        if not all(np.isfinite(w).all() for w in layers[-1]):
            raise ValueError(f"{name}: its numbers must be finite, and in Dense_{i} they are not")
    return layers


def _incoming(ours, theirs, orders, i):
    """(width, width): what unit j of theirs is like unit i of ours, by weights into them."""
    (kernel, bias), (other, other_bias) = ours[i], theirs[i]
    rows = orders[i - 1] if i else slice(None)
    return kernel.T @ other[rows] + np.outer(bias, other_bias)


def _outgoing(ours, theirs, orders, i):
    """The same by the weights out of them."""
    return ours[i + 1][0] @ theirs[i + 1][0][:, orders[i + 1]].T
