r"""How much the loss rises in a ball around w: in the worst case, by SAM's step, on average.

A ball is $\{w + D u : \|u\| \le \rho\}$. D is 1, or $|w|$ where ``adaptive`` (ASAM; Kwon et al.,
2021, arXiv:2102.11600), which undoes a rescaling of ReLU layers, and 0 where ``mask`` is, a pytree
like ``params`` or of scalars. Searches run over u: nothing is divided by $|w|$, and a weight at 0
stays there. $\rho$ is in the unit of weights (adaptive: a share of them), a rise in the loss's: the
mean of $\ell_i(w + \delta) - \ell_i(w)$, for it may be below the rounding of the loss itself.
``losses`` and choices make a program; parameters, data and numbers are its arguments. All measures
raise ``ValueError`` unless ``losses(params, batch)`` are (n,), one number an example.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from samscale.flatness.ascent import ascended, where
from samscale.flatness.estimates import Estimate
from samscale.flatness.examples import check, count, pure, summed


class Gap(NamedTuple):
    r"""$L(w + \delta) - L(w)$ at SAM's point: linear part, and the rest."""

    rise: float
    clean: float  # L(w)
    linear: float  # slope times delta, rho times the dual norm of the slope
    rest: float  # rise - linear: half delta' H delta, and rho^3


class WorstCase(NamedTuple):
    """The highest point that was found in a ball."""

    rise: float
    clean: float  # L(w)
    delta: jax.Array  # (size,), in the order of ravel_pytree
    feasible_norm: float  # of u, at most rho


class _Norm(NamedTuple):
    order: float
    steepest: Callable  # slope (size,) -> the point of the unit ball that is farthest along it
    onto: Callable  # u, rho -> the nearest point of the ball


def _unit(v):
    """v / |v|, and 0 at 0. Squares neither overflow nor vanish."""
    top = jnp.abs(v).max()
    v = v / jnp.where(top > 0, top, 1)
    length = jnp.linalg.norm(v)
    return v / jnp.where(length > 0, length, 1)


NORMS = {
    "l2": _Norm(2, _unit, lambda u, rho: jnp.where(jnp.linalg.norm(u) > rho, rho * _unit(u), u)),
    "linf": _Norm(jnp.inf, jnp.sign, lambda u, rho: jnp.clip(u, -rho, rho)),
}


def sam_gap(losses, params, data, rho, norm="l2", adaptive=False, batch_size=None, mask=None):
    r"""The rise that SAM's step sees: $L(w + \rho\, g / \|g\|) - L(w)$, as a ``Gap``.

    ``"linf"``: along the signs of g. Adaptive: $\delta = \rho\, w^2 g / \| |w| g \|$. Zero where g
    is; negative where the loss bends down within rho. Costs a gradient and two losses of the data
    set. Raises ``ValueError`` for a bad choice. Source: Foret et al., 2021, arXiv:2010.01412.
    """
    _check("rho", rho, norm, batch_size=batch_size)
    at = (adaptive, batch_size), pure(losses), params, data, mask
    return Gap(*map(float, _run(_gap, (norm,), *at, float(rho))))


def worst_case(
    losses,
    params,
    data,
    key,
    rho,
    norm="l2",
    adaptive=False,
    steps=20,
    restarts=2,
    batch_size=None,
    mask=None,
    toward=None,
) -> WorstCase:
    r"""$\max_{\|u\| \le \rho} L(w + D u) - L(w)$, from below, by projected ascent with momentum.

    The first of ``restarts`` starts is SAM's point, the others are random; only they leave w where
    the gradient is 0. ``toward``: a direction of u (size,) for the second to take, as that of the
    largest curvature, up the slope if it has one. The highest of all points counts, w among them:
    no rise is below 0 or that of SAM's step. Costs restarts (steps + 1) + 1 gradients of the data
    set, ``batch_size`` examples at a time, and some ten vectors. Raises ``ValueError`` for a bad
    choice. Source: APGD of Croce and Hein, 2020, arXiv:2003.01690, on weights by Andriushchenko et
    al., 2023, arXiv:2302.07011.
    """
    _check("rho", rho, norm, batch_size=batch_size, steps=steps, restarts=restarts)
    at = (adaptive, batch_size), pure(losses), params, data, mask
    choices = (norm, steps, restarts)
    rise, clean, delta, length = _run(_worst, choices, *at, float(rho), key, toward)
    return WorstCase(float(rise), float(clean), delta, float(length))


def m_sharpness(
    losses, params, data, rho, m, steps=1, norm="l2", adaptive=False, mask=None, chunk=16
) -> Estimate:
    r"""The mean over groups B of m examples of $L_B(w + \delta_B) - L_B(w)$, with its error.

    Groups are consecutive examples, each with a $\delta_B$ of its own: SAM's step where ``steps``
    is 1, else the best of an ascent by steps - 1 more. m = 1 takes examples one by one, m = n is
    ``sam_gap``, of the same source. ``chunk`` groups are in memory together. Costs up to steps + 1
    gradients and a loss of the data set. Raises ``ValueError`` unless m divides n.
    """
    _check("rho", rho, norm, steps=steps, chunk=chunk)
    n = count(data)
    if m < 1 or n % m:
        raise ValueError(f"m={m}: must divide the {n} examples")
    at = (adaptive, None), pure(losses), params, data, mask
    choices = (norm, m, steps, min(chunk, n // m))
    return Estimate.of(_run(_groups, choices, *at, float(rho)))


def average_case(
    losses,
    params,
    data,
    key,
    sigma=None,
    radius=None,
    adaptive=False,
    draws=10,
    batch_size=None,
    mask=None,
) -> Estimate:
    r"""$E[L(w + D u)] - L(w)$ over ``draws`` pairs of u and -u, with its standard error.

    $u \sim N(0, \sigma^2 I)$ gives $\frac{\sigma^2}{2} tr(D H D)$ up to $O(\sigma^4)$, which grows
    with the number P of weights; u uniform on the sphere $\|u\| =$ ``radius`` gives
    $\frac{radius^2}{2P}$ of that trace, P of weights that D moves. Pairs cancel the gradient's
    noise. Costs two losses of the data set a pair. Raises ``ValueError`` unless exactly one of both
    is given, or for a bad choice. Source: Andriushchenko et al., 2023, arXiv:2302.07011.
    """
    if (sigma is None) == (radius is None):
        raise ValueError(f"sigma={sigma}, radius={radius}: exactly one of both must be given")
    name, size = ("sigma", sigma) if radius is None else ("radius", radius)
    _check(name, size, batch_size=batch_size, draws=draws)
    at = (adaptive, batch_size), pure(losses), params, data, mask
    return Estimate.of(_run(_pairs, (name, draws), *at, float(size), key))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(measure, choices, setting, losses, params, data, mask, *numbers):
    with jax.default_matmul_precision("highest"):
        check("losses", losses, params, data)
        around = lambda data: _around(*setting, losses, params, data, mask)
        return measure(*choices, around, data, *numbers)


def _gap(norm, around, data, rho):
    d, clean, rise, slope = around(data)
    g = slope(jnp.zeros_like(d))[1]
    u = rho * NORMS[norm].steepest(g)
    above = rise(u)
    return above, clean, g @ u, above - g @ u


def _worst(norm, steps, restarts, around, data, rho, key, toward=None):
    d, clean, _, slope = around(data)
    norm, origin = NORMS[norm], jnp.zeros_like(d)
    first = slope(origin)[1]
    second = None if toward is None else jnp.where(first @ toward < 0, -1, 1) * toward

    def start(i, found):
        along = jax.lax.cond(i == 0, lambda: first, lambda: _normal(key, i, d))
        along = along if toward is None else jnp.where(i == 1, second, along)
        other = ascended(slope, norm, rho, rho * norm.steepest(along), steps)
        return where(other[0] > found[0], other, found)

    rise, u = jax.lax.fori_loop(0, restarts, start, (jnp.zeros((), d.dtype), origin))
    rise = jnp.where(jnp.isnan(clean), clean, rise)  # nothing is higher than NaN, or lower
    return rise, clean, d * u, jnp.linalg.norm(u, norm.order)


def _groups(norm, m, steps, chunk, around, data, rho):
    def one(group):
        if steps == 1:
            return _gap(norm, around, group, rho)[0]
        return _worst(norm, steps - 1, 1, around, group, rho, jax.random.key(0))[0]

    groups = jax.tree.map(lambda a: a.reshape(len(a) // m, m, *a.shape[1:]), data)
    return jax.lax.map(one, groups, batch_size=chunk)


def _pairs(name, draws, around, data, size, key):
    d, _, rise, _ = around(data)

    def pair(i):
        z = _normal(key, i, d)
        u = size * (_unit(z) if name == "radius" else z)
        return (rise(u) + rise(-u)) / 2

    return jax.lax.map(pair, jnp.arange(draws))


def _normal(key, i, d):
    return (d != 0) * jax.random.normal(jax.random.fold_in(key, i), d.shape, d.dtype)


def _around(adaptive, batch_size, losses, params, data, mask):
    """D, L(w), and two functions of u: the rise, and the rise with its gradient."""
    w, like = ravel_pytree(params)
    n, dtype = count(data), jnp.promote_types(w.dtype, jnp.float32)
    d = (jnp.abs(w) if adaptive else jnp.ones_like(w)).astype(dtype)
    if mask is not None:
        mask = jax.tree.map(lambda m, w: jnp.broadcast_to(m, w.shape), mask, params)
        d = d * (ravel_pytree(mask)[0] != 0)
    at = lambda u, batch: losses(like((w + d * u).astype(w.dtype)), batch).astype(dtype)
    one = lambda example: at(0 * d, jax.tree.map(lambda a: a[None], example))[0]
    clean = at(0 * d, data) if batch_size is None else jax.lax.map(one, data, batch_size=batch_size)
    total = lambda u, part: (at(u, part[0]) - part[1]).sum()
    mean = lambda f: jax.tree.map(lambda x: x / n, summed(f, (data, clean), batch_size))
    rise = lambda u: mean(lambda part: total(u, part))
    slope = lambda u: mean(lambda part: jax.value_and_grad(total)(u, part))
    return d, clean.mean(), rise, slope


def _check(name, size, norm="l2", **counts):
    if not 0 <= size < math.inf:
        raise ValueError(f"{name}={size}: must be finite and at least 0")
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r}: must be one of {sorted(NORMS)}")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
