"""The measure ``stability``: how curvature varies between examples, and the rates it allows."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from samscale.flatness import batches, dual, examples, maps, output_space, stability
from samscale.flatness.entries import ASKED, eigenvalues
from samscale.flatness.krylov import Eigenpairs, bracketed, eigenpairs
from samscale.flatness.point import Point
from samscale.flatness.rises import moving
from samscale.named import says

RATES = 1e-2  # how near rates that are searched for come


class Seen(NamedTuple):
    """What examples do near the point, by their Hessians or, where outputs are, Gauss-Newton's."""

    moment: Callable  # as of ``maps.hessian_moments``
    n: int
    halves: dual.Halves | None = None  # where all are positive semi-definite
    at: tuple = ()  # outputs, params, data
    together: int | None = None  # examples a pass
    free: bool = False  # whether parameters are more than outputs: each can be moved alone
    blocks: output_space.Blocks | None = None

    @property
    def largest(self):
        """(n,): of each example's matrix."""
        return self.halves.values[:, -1]

    def top(self, k, key):
        """The largest eigenpair of the k-th moment."""
        if self.halves is None:
            return eigenpairs(self.moment((0,) * k + (1,)), key, tolerance=ASKED)
        at = *self.at, self.halves.of_power(k)
        found = eigenpairs(dual.operator(*at, self.together), key, tolerance=ASKED)
        v = dual.lifted(*at, found.vectors[0], self.together)
        return found._replace(vectors=v[None])

    def mostly_examples(self, k, a):
        """Whether the sharpest example alone adds more to the k-th moment than the mean's power."""
        return self.halves is not None and self.largest.max() ** k >= self.n * a**k

    def limits(self, top: Eigenpairs, s2, rho, size, key) -> batches.Limits:
        """Largest eigenvalues that no example, no batch of a size and no mean of them exceeds."""
        a = float(top.values[0] + top.residuals[0])
        c = batches.sharpest(self.largest, a, size)
        rows = batches.every(self.n, size) if rho and size > 1 else None
        if rows is not None:
            op = dual.of_batches(*self.at, self.halves.of_power(1), rows)
            found = eigenpairs(op, key, tolerance=1e-2)
            c = min(c, float(found.values[0] + found.residuals[0]))
        spread = batches.share(self.n, size) * max(s2.largest + s2.residual, 0.0)
        return batches.Limits(a, float(self.largest.max()), c, spread)

    def grown(self, mean, eta, rho, size) -> Callable:
        """Of a direction: how much the mean square grows in a step, as ``square_growth`` proves."""

        def along(v):
            values = output_space.forms(*self.at, self.blocks, v, self.together)
            return batches.square_growth(values, float(v @ mean(v)), eta, rho, size)

        return along


@says("Sharpness, non-uniformity, stable rates and the run's own; Gauss-Newton where outputs are.")
def linear_stability(point: Point, key) -> dict[str, float]:
    keys, seen = jax.random.split(key, 8), _seen(point)
    top, spreads = seen.top(1, keys[0]), {}
    found = eigenvalues(top, "a")
    for k in (2, 3, 4):
        alone = seen.top(k, keys[k]) if seen.mostly_examples(k, found["a"]) else None
        op = maps.differing(seen.moment, k)
        both = k % 2 == 1 and not seen.halves  # else the other end is -a^k at least
        s = spreads[k] = stability.spread(op, keys[k], k, ASKED, both, alone)
        off = stability.uncertainty(s, k, found["a"], op.dtype)
        found |= {f"s{k}": s.value, f"s{k}_residual": off}
        if both:
            found[f"s{k}_low"] = float(np.cbrt(s.smallest))
    for name, rho in (("sgd", 0.0), ("sam", point.rho)):
        found[f"largest_stable_rate_{name}"] = _rate(seen, rho, keys[5])
    return found | (_own(point, seen, top, spreads[2], keys[6]) if point.learning_rate else {})


def _rate(seen, rho, key):
    """The largest of condition (5), with batches of one."""
    if seen.halves and seen.free:
        return stability.safe_rate(seen.largest, rho)
    pair = maps.step_moments(seen.moment, seen.n, rho)
    return stability.largest_stable_rate(*pair, key, tolerance=RATES)


def _own(point, seen, top, s2, key):
    """What the run's own rate, radius and batches make of it, over all batches of that size."""
    eta, rho, size = point.learning_rate, point.train_rho, min(point.batch_size, seen.n)
    mean, limits, how, found = maps.step_mean(seen.moment, seen.n, rho, size), None, {}, {}
    if seen.halves:
        limits = seen.limits(top, s2, rho, size, key)
        how["safe"] = batches.safe_rate(limits, seen.n, rho, size)
        how["grown"] = seen.grown(mean, eta, rho, size)
        found["safe_rate"] = how["safe"]
    growing = maps.step_growth(seen.moment, seen.n, eta, rho, size, limits)
    known = _top_of_mean(seen, mean, top, s2, rho, size, key)
    told = stability.judged(mean, growing, key, eta, RATES, top=known, **how)
    found |= {"rate_used": eta, "mean_rate": told.mean_rate}
    if not math.isnan(told.excess):
        found["excess"] = told.excess
    return found | {"stable": {True: 1.0, False: -1.0}.get(told.stable, 0.0)}


def _top_of_mean(seen, mean, top, s2, rho, size, key):
    """The largest eigenvalue of E[K_B], where little is left to search for; else None."""
    a = float(top.values[0])
    if not rho:
        return a
    if not seen.halves:
        return None
    more = rho * (a**2 + batches.share(seen.n, size) * (s2.largest + s2.residual))
    at, how = (a + more, top.next + more), {"tolerance": ASKED, "max_products": 100}
    found = bracketed(mean, key, top.vectors[0], RATES, *at, **how)
    return float(found.values[0])


def _seen(point: Point) -> Seen:
    at, n, together = (point.params, point.data), examples.count(point.data), point.together()
    z = point.outputs and jax.eval_shape(examples.pure(point.outputs), *at)
    if not z or z.ndim != 2:
        return Seen(maps.hessian_moments(point.losses, *at, batch_size=together), n)
    blocks = output_space.blocks(point.outputs, point.criterion, *at)

    def moment(c, rows=None, whole=()):
        if rows is None:
            return output_space.moments(point.outputs, *at, blocks, c, whole, together)
        return output_space.batch_moments(point.outputs, point.criterion, *at, c, rows)

    halves, free = dual.halves(blocks), moving(point) > z.size
    return Seen(moment, n, halves, (point.outputs, *at), together, free, blocks)
