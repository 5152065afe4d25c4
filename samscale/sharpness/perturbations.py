r"""From a gradient to the displacement of the second pass: optax transformations, to be *added*."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness.core import norm


class Count(NamedTuple):
    """Steps behind us, for radii that follow a schedule."""

    count: jax.Array


def to_sphere(rho) -> optax.GradientTransformation:
    r"""$e = \rho\, g / \|g\|_2$, the maximiser of $\langle g, e \rangle$ over $\|e\|_2 \le \rho$.

    ``rho``: a number, an array (traced or not), or a schedule of the step. Zero where $g = 0$.
    """

    def update(g, state, params=None):
        del params
        factor = _radius(rho, state.count) * _inverse(norm(g))
        return _scale(factor, g), Count(state.count + 1)

    return optax.GradientTransformation(_start, update)


def times(rho) -> optax.GradientTransformation:
    r"""$e = \rho\, g$: not normalised, the SAM of the paper's theorems."""

    def update(g, state, params=None):
        del params
        return _scale(_radius(rho, state.count), g), Count(state.count + 1)

    return optax.GradientTransformation(_start, update)


def _start(params):
    del params
    return Count(jnp.zeros((), jnp.int32))


def _radius(rho, count):
    return rho(count) if callable(rho) else rho


def _scale(factor, g):
    """``factor`` times every leaf, multiplied in at least float32, in the leaf's own dtype."""
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.tree.map(lambda x: (factor * wide(x)).astype(x.dtype), g)


def _inverse(x):
    """1/x, and 0 at x = 0: an interpolating network has zero gradient, not NaN."""
    return jnp.where(x == 0, 0, 1 / jnp.where(x == 0, 1, x))
