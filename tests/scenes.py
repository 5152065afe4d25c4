"""Parameters and a convex loss, for the tests of landscapes and of paths."""

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

flat = lambda tree: np.concatenate([np.ravel(w) for w in jax.tree.leaves(tree)]).astype(float)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(seed):
    return {"kernel": normal(seed, 2, 3), "bias": normal(seed + 100, 3)}


LINEAR = (normal(1, 10, 9), normal(2, 10))  # ten examples of a linear regression in nine weights


def squares(params, batch):
    """1/2 (x'w - y)^2: convex, and a parabola along every line."""
    x, y = batch
    return 0.5 * (x @ ravel_pytree(params)[0] - y) ** 2


def parabola(w):
    x, y = (np.asarray(a, np.float64) for a in LINEAR)
    return 0.5 * ((x @ w - y) ** 2).mean()
