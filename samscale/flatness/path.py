r"""Smoothness and the Polyak-Lojasiewicz (PL) constant along the way that training takes.

Of the segment from $x_k$ to $x_{k+1} = x_k + d$, as in appendix F of Shin et al., 2025
(arXiv:2311.17539), at $\gamma = \delta, 2\delta, ..., 1$:

$$\hat\beta = \max_\gamma \frac{\|\nabla f(x_k + \gamma d) - \nabla f(x_k)\|}{\|\gamma d\|}, \qquad
\hat\alpha = \min_\gamma \frac{\|\nabla f(x_k + \gamma d)\|^2}{f(x_k + \gamma d) - f^*}.$$

The PL inequality here is $\|\nabla f\|^2 \ge \alpha (f - f^*)$, without a half: $\alpha = 2\mu$.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from samscale.flatness.examples import check, count, pure, summed
from samscale.sharpness import trees


class Constants(NamedTuple):
    smoothness: float  # beta-hat; 0 where x_k did not move
    pl: float  # alpha-hat; infinite where the loss is at its least all along


def along(
    losses, start, end, data, least: float = 0.0, parts: int = 10, batch_size: int | None = None
) -> Constants:
    r"""$\hat\beta$ and $\hat\alpha$ between two points of a path, at ``parts`` = $1/\delta$ places.

    ``least``: $f^*$, zero where the network can interpolate. Costs ``parts`` + 1 gradients of the
    data set. Raises ``ValueError`` for fewer than one part, or losses that are not (n,).
    """
    if parts < 1:
        raise ValueError(f"parts={parts}: must be at least 1")
    check("losses", losses, end, data)
    found = _along(pure(losses), start, end, data, least, parts, batch_size)
    return Constants(*map(float, found))


@functools.partial(jax.jit, static_argnames=("parts", "batch_size"))
def _along(losses, start, end, data, least, parts, batch_size):
    (given, tree), (y, _) = ravel_pytree(start), ravel_pytree(end)
    x = trees.wide(given)
    d = trees.wide(y) - x

    def value_and_gradient(w):
        loss = lambda w, batch: trees.wide(losses(tree(w.astype(given.dtype)), batch)).sum()
        total = lambda batch: jax.value_and_grad(loss)(w, batch)
        return jax.tree.map(lambda s: s / count(data), summed(total, data, batch_size))

    _, g = value_and_gradient(x)

    def at(gamma):
        value, slope = value_and_gradient(x + gamma * d)
        length, above = gamma * jnp.linalg.norm(d), value - least
        bend = jnp.linalg.norm(slope - g) / jnp.where(length > 0, length, 1)
        ratio = (slope @ slope) / jnp.where(above > 0, above, 1)
        return jnp.where(length > 0, bend, 0), jnp.where(above > 0, ratio, jnp.inf)

    with jax.default_matmul_precision("highest"):
        bends, ratios = jax.lax.map(at, jnp.arange(1, parts + 1, dtype=x.dtype) / parts)
    return bends.max(), ratios.min()
