r"""What random probes tell of an operator: trace, Frobenius norm, diagonal, density of eigenvalues.

Each number comes with its standard error. Plain Hutchinson estimates are used: on Hessians of
networks the variance-reduced ones gain nothing at a hundred products and keep them all in memory.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from samscale.flatness import lanczos
from samscale.flatness.operators import Operator
from samscale.sharpness.draws import signs

LEAST_PROBES = 10  # before a standard error is believed


class Estimate(NamedTuple):
    """A mean over ``n`` independent draws, and its standard error (NaN where n = 1)."""

    value: float
    error: float
    n: int

    @classmethod
    def of(cls, draws) -> "Estimate":
        draws = np.asarray(draws, np.float64)
        n = len(draws)
        error = draws.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        return cls(float(draws.mean()), float(error), n)


class Probed(NamedTuple):
    """All three from the same products."""

    trace: Estimate
    frobenius_squared: Estimate  # the sum of squared eigenvalues
    diagonal: jax.Array  # (size,)
    diagonal_error: jax.Array  # (size,), standard errors


class Spectrum(NamedTuple):
    r"""Quadrature nodes of each probe: $\frac{1}{P} tr f(A) \approx$ the mean of sum w f(node).

    Eigenvalues ``apart`` are counted by themselves, and probes tell of the others only.
    """

    nodes: np.ndarray  # (probes, steps)
    weights: np.ndarray  # (probes, steps), each row sums to the share that is not apart, about
    size: int
    apart: np.ndarray  # (k,)
    vectors: jax.Array  # (k, size), theirs

    def draws(self, f) -> np.ndarray:
        """(probes,): what each tells of ``trace_of(f)``."""
        return f(self.apart).sum() + self.size * (self.weights * f(self.nodes)).sum(-1)

    def trace_of(self, f) -> Estimate:
        r"""$tr f(A)$ for a function of arrays, such as ``lambda x: x**3``."""
        return Estimate.of(self.draws(f))

    def density(self, grid, width: float):
        """Share of eigenvalues per unit, smoothed by a normal of that standard deviation."""
        bump = lambda away: np.exp(-0.5 * away**2) / (width * math.sqrt(2 * math.pi))
        grid = np.asarray(grid)[:, None]
        alone = bump((grid - self.apart) / width).sum(-1) / self.size
        bumps = bump((grid[..., None] - self.nodes) / width)
        return alone + (bumps * self.weights).sum(-1).mean(-1)


def probed(op: Operator, key, probes: int = 100, tolerance: float = 0.0) -> Probed:
    r"""Hutchinson's estimates from $z^\top A z$, $\|Az\|^2$ and $z \odot Az$, z of random signs.

    Stops early once the standard error of the trace is at most ``tolerance`` times it. Costs one
    product a probe and five vectors of memory, however many. Source: Hutchinson, 1990,
    doi:10.1080/03610919008812866; the variance of $z^\top A z$ is twice the sum of the squared
    elements off the diagonal. Raises ``ValueError`` for fewer than one probe.
    """
    if probes < 1:
        raise ValueError(f"probes={probes}: must be at least 1")
    n, traces, squares, mean, spread = jax.device_get(_probe(op, key, probes, tolerance))
    error = np.sqrt(spread / (n * max(n - 1, 1))) if n > 1 else np.full_like(mean, math.nan)
    return Probed(Estimate.of(traces[:n]), Estimate.of(squares[:n]), mean, error)


def spectrum(op: Operator, key, steps: int = 80, probes: int = 5, apart: int = 0) -> Spectrum:
    r"""Stochastic Lanczos quadrature: what the density of all eigenvalues is known by.

    ``steps * probes`` products. Moments of each probe are exact up to degree 2 steps - 1; nodes
    below the resolution of ``steps`` stand for clusters. Source: Ubaru, Chen and Saad, 2017,
    doi:10.1137/16M1104974.

    ``apart``: so many of the largest eigenvalues, in magnitude, or as many as the first probe has
    found to 1 %, are counted by themselves. Other probes are made orthogonal to their vectors, so
    that a few large eigenvalues, which set traces of powers, add nothing to the error; as Hutch++
    (Meyer et al., 2021, arXiv:2010.09649). Raises ``ValueError`` for fewer than one step or probe.
    """
    if steps < 1 or probes < 1:
        raise ValueError(f"steps={steps}, probes={probes}: must be at least 1")
    first = lanczos.ritz(op, _probe_of(op, key, 0), steps, apart)
    first.weights[first.found] = 0
    nodes, weights = [first.values], [first.weights]
    for i in range(1, probes):
        z = _without(_probe_of(op, key, i), first.vectors)
        seen = lanczos.ritz(op, z, steps)
        nodes.append(seen.values)
        weights.append(float(z @ z) / op.size * seen.weights)
    known = first.values[first.found]
    return Spectrum(np.stack(nodes), np.stack(weights), op.size, known, first.vectors)


def cubes_and_fourths(op: Operator, key, probes: int, of: Spectrum) -> np.ndarray:
    r"""(2, probes): draws of $tr A^3$ and $tr A^4$ beside the eigenvalues ``of.apart``.

    From $(Az)^\top A^2 z$ and $\|A^2 z\|^2$: two products a probe.
    """
    found = _cubes_and_fourths(op, key, of.vectors, probes)
    return np.asarray(found) + np.array([[(of.apart**3).sum()], [(of.apart**4).sum()]])


@functools.partial(jax.jit, static_argnames="probes")
def _cubes_and_fourths(op, key, vectors, probes):
    def draw(i):
        once = op(_without(_probe_of(op, key, i), vectors))
        twice = op(once)
        return once @ twice, twice @ twice

    return jnp.stack(jax.lax.map(draw, jnp.arange(probes)))


def _probe_of(op, key, i):
    return signs(jax.random.fold_in(key, i), (op.size,), op.dtype)


@jax.jit
def _without(v, rows):
    """What of v no row holds; twice, for rows are orthogonal to the root of rounding."""
    for _ in range(2):
        v = v - (rows @ v) @ rows
    return v


@functools.partial(jax.jit, static_argnames="probes")
def _probe(op, key, probes, tolerance):
    def goes_on(carry):
        n, traces, *_ = carry
        seen = jnp.arange(probes) < n
        mean = jnp.where(seen, traces, 0).sum() / jnp.maximum(n, 1)
        variance = jnp.where(seen, (traces - mean) ** 2, 0).sum() / jnp.maximum(n - 1, 1)
        sure = variance <= (tolerance * mean) ** 2 * n
        return (n < probes) & ((n < LEAST_PROBES) | ~sure | (tolerance == 0))

    def draw(carry):
        n, traces, squares, mean, spread = carry
        z = _probe_of(op, key, n)
        product = op(z)
        each = z * product
        step = each - mean
        mean = mean + step / (n + 1)
        spread = spread + step * (each - mean)  # Welford
        traces, squares = traces.at[n].set(each.sum()), squares.at[n].set(product @ product)
        return n + 1, traces, squares, mean, spread

    each, vector = jnp.zeros(probes, op.dtype), jnp.zeros(op.size, op.dtype)
    return jax.lax.while_loop(goes_on, draw, (0, each, each, vector, vector))
