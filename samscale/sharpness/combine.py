r"""From the clean gradient g and the perturbed one, $g_s$, to what the optimizer is given."""

import jax
import jax.numpy as jnp

from samscale.sharpness import trees
from samscale.sharpness.checks import check


def gsam(alpha):
    r"""$g_s - \alpha\, (g - \frac{\langle g, g_s \rangle}{\|g_s\|^2} g_s)$: alpha = 0 is SAM."""

    def combine(g, gs):
        orthogonal = trees.add(g, gs, -trees.along(g, gs))
        return trees.add(gs, orthogonal, -alpha)

    return combine


def wsam(gamma):
    r"""$g + \frac{\gamma}{1 - \gamma} (g_s - g)$: gamma = 0 is no SAM, 1/2 is SAM."""
    return lambda g, gs: trees.add(g, sharpness(gamma)(g, gs))


def sharpness(gamma):
    r"""$\frac{\gamma}{1 - \gamma} (g_s - g)$: the second term of ``wsam`` alone."""
    check("gamma", gamma, below=1)
    factor = gamma / (1 - gamma)
    return lambda g, gs: trees.scale(factor, trees.add(gs, g, -1.0))


def step_size_only(g, gs):
    r"""$g\, \|g_s\| / \|g\|$: the length of SAM's gradient in the direction of the clean one."""
    return trees.scale(trees.ratio(trees.norm(gs), trees.norm(g)), g)


def looksam(alpha):
    r"""``(remember, recall)``: v is the part of $g_s$ orthogonal to g; later,
    $g + \alpha \|g\| \hat v$. What is remembered is $\hat v$.

    A v within the rounding of $g_s$ counts as zero: its direction is noise, and would be blown up.
    """

    def remember(g, gs):
        v = trees.add(gs, g, -trees.along(gs, g))
        rounding = 8 * max((float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(g)), default=0)
        length = trees.norm(v)
        certain = length > rounding * trees.norm(gs)
        return trees.scale(jnp.where(certain, trees.ratio(1.0, length), 0.0), v)

    def recall(g, unit):
        return trees.add(g, unit, alpha * trees.norm(g))

    return remember, recall
