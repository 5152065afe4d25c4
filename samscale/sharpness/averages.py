"""Perturbations that remember gradients: to be chained before ``to_ball``."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import trees
from samscale.sharpness.checks import check
from samscale.sharpness.promotion import standard


class Mean(NamedTuple):
    """A running mean of gradients; empty before the first."""

    empty: jax.Array
    mean: Any


def drop_mean(sigma=1.0, decay=0.9) -> optax.GradientTransformation:
    r"""$g - \sigma m$, where $m \leftarrow \lambda m + (1 - \lambda) g$ of the gradients before.

    In the first step nothing is taken away, and m = g after it. Raises ``ValueError`` for a decay
    of less than 0, or 1 and more.
    """
    check("decay", decay, below=1)
    return _running_mean(decay, lambda g, before, after: trees.add(g, before, -sigma))


def smooth(theta=0.9) -> optax.GradientTransformation:
    r"""$d \leftarrow (1 - \theta) d + \theta g$; d = g in the first step. Raises ``ValueError`` for
    a theta of 0 and less, or beyond 1."""
    check("theta", theta, above=0, most=1)
    return _running_mean(1 - theta, lambda g, before, after: after)


def _running_mean(decay, use):
    def init(params):
        return Mean(jnp.ones((), jnp.int32), trees.zeros(params))

    @standard
    def update(g, state, params=None):
        del params
        blend = lambda m, x: jnp.where(
            state.empty, trees.wide(x), decay * trees.wide(m) + (1 - decay) * trees.wide(x)
        ).astype(m.dtype)
        after = jax.tree.map(blend, state.mean, g)
        kept = jax.tree.map(trees.finite_or, after, state.mean)  # one bad batch is not remembered
        return use(g, state.mean, after), Mean(jnp.zeros_like(state.empty), kept)

    return optax.GradientTransformation(init, update)
