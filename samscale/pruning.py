r"""Sparse networks at initialization: a pruner scores weights, the lowest scores are removed.

A mask is a pytree like the parameters: for a prunable kernel an array of booleans, False where
removed; for every other leaf the scalar True. It composes with any loss and knows no optimizer.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from samscale import kernels


class Pruner(NamedTuple):
    """``score(key, params, gradient) -> scores``; ``gradient()`` is called only where needed."""

    score: Callable
    scope: str  # its custom: the same share of each layer, or of all weights together


def random(key, params, gradient):
    del gradient
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    draw = lambda k, w: jax.random.uniform(k, w.shape)
    return structure.unflatten(map(draw, keys, leaves))


def magnitude(key, params, gradient):
    r"""$|w|$."""
    del key, gradient
    return jax.tree.map(jnp.abs, params)


def snip(key, params, gradient):
    r"""$|w\, \partial L / \partial w|$ at initialization (Lee, Ajanthan, Torr: SNIP, ICLR 2019)."""
    del key
    return jax.tree.map(lambda w, g: jnp.abs(w * g), params, gradient())


PRUNERS = {
    "none": None,
    "random": Pruner(random, "layer"),
    "magnitude": Pruner(magnitude, "layer"),
    "snip": Pruner(snip, "global"),
}


def make_mask(scores, sparsity, scope, exempt=()):
    """Remove exactly ``round(sparsity * size)`` weights with the lowest scores.

    Ties fall by index: in flattened order, the earlier weight goes first. ``size`` counts the
    prunable weights: all kernels (``kernels.is_kernel``) outside the layers named in ``exempt``,
    one by one (``scope="layer"``) or taken together (``"global"``). Biases and normalization stay
    dense.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(scores)
    prunable = [is_prunable(path, score, exempt) for path, score in paths]
    flat = [score.ravel() for (_, score), yes in zip(paths, prunable, strict=True) if yes]
    if scope == "global" and flat:
        sizes = [f.size for f in flat]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        kept = jnp.split(_keep(jnp.concatenate(flat), sparsity), ends)
    else:
        kept = [_keep(f, sparsity) for f in flat]
    kept = iter(kept)
    masks = [
        next(kept).reshape(score.shape) if yes else jnp.ones((), bool)
        for (_, score), yes in zip(paths, prunable, strict=True)
    ]
    return structure.unflatten(masks)


def is_prunable(path, leaf, exempt=()):
    return kernels.is_kernel(path, leaf) and not set(kernels.names(path)) & set(exempt)


def _keep(score, sparsity):
    removed = round(sparsity * score.size)
    order = jnp.argsort(score, stable=True)
    return jnp.ones(score.size, bool).at[order[:removed]].set(False)


def apply(mask, params):
    r"""$m \odot w$; ``mask=None`` keeps everything. Gradients of removed weights vanish."""
    if mask is None:
        return params
    return jax.tree.map(lambda m, w: jnp.where(m, w, 0), mask, params)


def sparsity(mask):
    """The share of the prunable weights that is removed: 0 for ``None``."""
    arrays = [m for m in jax.tree.leaves(mask) if m.ndim]
    size = sum(m.size for m in arrays)
    return 1 - sum(m.sum() for m in arrays) / size if size else 0.0
