r"""Projected gradient ascent whose steps shrink where they stop paying off, after APGD.

Croce and Hein, 2020, arXiv:2003.01690. Three choices differ: momentum is forgotten where a step is
halved, it weighs from the first step on, and a pause without a new best halves the step whatever
the pause before did.
"""

import jax
import jax.numpy as jnp
import numpy as np


def ascended(slope, norm, rho, u, steps):
    """The rise at the highest point of an ascent from u, and the point."""

    def step(carry, length):
        u, before, last, best, size, ups, top = carry
        value, g = slope(u)
        best, ups = where(value > best[0], (value, u, g), best), ups + (value > last)
        halve = (ups < 0.75 * length) | ((length > 0) & (best[0] == top))
        # no momentum out of a step that was too long
        value, u, g, before = where(halve, (*best, best[1]), (value, u, g, before))
        size = jnp.where(halve, size / 2, size)
        ahead = norm.onto(u + size * norm.steepest(g), rho)
        new = norm.onto(u + 0.75 * (ahead - u) + 0.25 * (u - before), rho)
        ups, top = where(length > 0, (0, best[0]), (ups, top))
        return (new, u, value, best, size, ups, top), None

    top, size = jnp.array(-jnp.inf, u.dtype), jnp.array(2 * rho, u.dtype)
    carry = (u, u, -top, (top, u, 0 * u), size, 0, top)
    return jax.lax.scan(step, carry, _periods(steps))[0][3][:2]


def _periods(steps):
    """At each point, how many steps the size is judged by there; 0, it is not."""
    ends = np.cumsum(np.maximum(0.22 - 0.03 * np.arange(8), 0.06)) * steps
    ends = np.unique(np.ceil(ends).astype(int))
    return np.bincount(ends, np.diff(ends, prepend=0), steps + 1)


def where(yes, a, b):
    return jax.tree.map(lambda a, b: jnp.where(yes, a, b), a, b)
