r"""All flatness numbers of one point, by name: what ``samscale flatness`` prints and runs record.

A measure is a function ``(point, key) -> {name: number}``; a standard error is named ``NAME_se``.
``meanings`` has a line for every number, ``NEEDS`` what a point may lack.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from samscale.errors import Diverged
from samscale.flatness import (
    ball,
    estimates,
    features,
    noise,
    operators,
    output_space,
    path,
    stability,
)
from samscale.flatness.krylov import eigenpairs

GROUPS = (1, 16, 128)  # examples that m-sharpness lets ascend together
MOST_GROUPS = 128  # of each kind: a network of its own each; the error of their mean is told


class Point(NamedTuple):
    """A loss where it is measured, and how."""

    losses: Callable  # (params, batch) -> (n,); arrays it holds are arguments where a Partial
    params: Any
    data: Any  # a pytree of arrays, examples along the leading axis
    outputs: Callable | None = None  # (params, batch) -> (n, C)
    criterion: Callable | None = None  # (outputs, batch) -> (n,): losses = criterion of outputs
    mask: Any = None  # like params or of scalars: 0 where weights are pruned, 1 elsewhere
    activations: Callable | None = None  # (params, batch) -> (units, features); see ``features``
    start: Callable | None = None  # batch -> the same at initialization
    before: Any = None  # parameters an epoch ago
    rho: float = 0.05  # of the ascents that are measured, in the unit of weights
    batch_size: int = 1


def curvature(point: Point, key) -> dict[str, float]:
    """Ends of the Hessian's spectrum, trace and norm: some 60 products with the Hessian."""
    first, second, third = jax.random.split(key, 3)
    h = operators.hessian(point.losses, point.params, point.data)
    top = eigenpairs(h, first, min(3, h.size), tolerance=1e-2)
    low = eigenpairs(h, second, 1, "smallest", tolerance=5e-2, max_products=60)
    seen = estimates.probed(h, third, probes=30)
    squared = seen.frobenius_squared.value
    return {
        **_eigenvalues(top, *(f"lambda_{i + 1}" for i in range(len(top.values)))),
        **_eigenvalues(low, "lambda_min"),
        **_with_error("trace", seen.trace),
        "frobenius": math.sqrt(squared),
        "frobenius_se": seen.frobenius_squared.error / (2 * math.sqrt(squared)) if squared else 0.0,
        "effective_rank": seen.trace.value**2 / squared if squared else 0.0,
    }


def layers(point: Point, key) -> dict[str, float]:
    """The largest eigenvalue of each layer's own block: about seven products a leaf."""
    h = operators.hessian(point.losses, point.params, point.data)
    found = {}
    for i, (name, mask) in enumerate(operators.of_layers(point.params).items()):
        op = operators.scaled(h, mask)
        top = eigenpairs(op, jax.random.fold_in(key, i), 1, tolerance=5e-2, max_products=60)
        found |= _eigenvalues(top, f"lambda_1/{name}")
    return found


def sharpness(point: Point, key) -> dict[str, float]:
    """How far the loss rises in balls of the point's radius: some 30 gradients, 40 losses."""
    first, second = jax.random.split(key)
    at, rho, mask = (point.losses, point.params, point.data), point.rho, {"mask": point.mask}
    found = {
        "sam_gap": ball.sam_gap(*at, rho, **mask).rise,
        "worst_case": ball.worst_case(*at, first, rho, steps=10, restarts=1, **mask).rise,
        **_with_error("average_case", ball.average_case(*at, second, radius=rho, **mask)),
    }
    n = operators.count(point.data)
    for m in (m for m in GROUPS if 2 * m <= n):
        size = min(n // m, MOST_GROUPS) * m
        whole = jax.tree.map(lambda a, size=size: a[:size], point.data)
        rise = ball.m_sharpness(point.losses, point.params, whole, rho, m, **mask)
        found |= _with_error(f"m_sharpness_{m}", rise)
    d = jnp.abs(ravel_pytree(point.params)[0])
    scaled = operators.scaled(operators.hessian(*at), d)
    return found | _eigenvalues(eigenpairs(scaled, second, tolerance=1e-2), "adaptive_lambda_1")


def linear_stability(point: Point, key) -> dict[str, float]:
    """Sharpness, non-uniformity and the largest stable rates, by Gauss-Newton where outputs are."""
    keys = jax.random.split(key, 8)
    moment = _moments(point)
    found = _eigenvalues(eigenpairs(moment(0, 1), keys[0], tolerance=1e-2), "a")
    for k in (2, 3, 4):
        op = moment(*(0,) * k, 1) - moment(0, 1) ** k
        seen = stability.spread(op, keys[k], k)
        slope = k * seen.value ** (k - 1)  # of the power that the residual is an error of
        found |= {f"s{k}": seen.value, f"s{k}_residual": seen.residual / slope if slope else 0.0}
    for name, rho in (("sgd", 0.0), ("sam", point.rho)):
        rate = stability.largest_stable_rate(
            moment(0, 1, rho), moment(0, 0, 1, 2 * rho, rho**2), keys[5], tolerance=1e-2
        )
        found[f"largest_stable_rate_{name}"] = rate
    return found


def gradient_noise(point: Point, key) -> dict[str, float]:
    """How noisy gradients of single examples are, and how aligned with the Hessian."""
    return noise.noise(point.losses, point.params, point.data, key, batch_size=point.batch_size)


def density(point: Point, key) -> dict[str, float]:
    """Of all eigenvalues, from 2 probes of 60 Lanczos steps: moments and the share below zero."""
    h = operators.hessian(point.losses, point.params, point.data)
    found = estimates.spectrum(h, key, steps=60, probes=2)
    floor = -1e-3 * np.abs(found.nodes).max()
    return {  # two draws do not tell their error
        "negative_share": found.trace_of(lambda x: (x < floor) / found.size).value,
        "trace_cubed": found.trace_of(lambda x: x**3).value,
        "trace_fourth": found.trace_of(lambda x: x**4).value,
    }


def way(point: Point, key) -> dict[str, float]:
    """Smoothness and PL constant along the last epoch's way: eleven gradients."""
    del key
    found = path.along(point.losses, point.before, point.params, point.data)
    return {"beta_hat": found.smoothness, "alpha_hat": found.pl}


def of_features(point: Point, key) -> dict[str, float]:
    """Units that changed sides since initialization, and the rank of what the last layer sees."""
    del key
    return features.compared(point.activations, point.start, point.params, point.data)


MEASURES: dict[str, Callable] = {
    "curvature": curvature,
    "sharpness": sharpness,
    "stability": linear_stability,
    "noise": gradient_noise,
    "layers": layers,
    "density": density,
    "features": of_features,
    "path": way,
}
NEEDS = {  # fields of a point, and why they may be missing
    "features": (("activations", "start"), "the task must tell its activations"),
    "path": (
        ("before",),
        "the parameters of an epoch ago must be kept, as --config.snapshot_every=1",
    ),
}


def first_line(name: str) -> str:
    """A line for a measure."""
    return MEASURES[name].__doc__.splitlines()[0]


def lacking(point: Point, name: str) -> str:
    """What keeps a measure from this point, in words; empty where nothing does."""
    fields, words = NEEDS.get(name, (("params",), ""))
    return words if any(getattr(point, field) is None for field in fields) else ""


def measured(point: Point, key, names=tuple(MEASURES)) -> dict[str, float]:
    """All numbers of these measures; without what is infinite, and measures the point lacks.

    Raises ``Diverged`` where the loss is not finite, of any example.
    """
    if not np.isfinite(_losses(operators.pure(point.losses), point.params, point.data)).all():
        raise Diverged("the loss of some example is not finite: there is nothing to measure")
    found: dict[str, float] = {}
    for name in (name for name in names if not lacking(point, name)):
        found |= MEASURES[name](point, jax.random.fold_in(key, list(MEASURES).index(name)))
    return {name: float(value) for name, value in found.items() if not math.isinf(value)}


@jax.jit
def _losses(losses, params, data):
    return losses(params, data)


def _eigenvalues(pairs, *names):
    """With residuals: some eigenvalue of the operator is as near as that."""
    found = dict(zip(names, map(float, pairs.values), strict=True))
    errors = zip(names, map(float, pairs.residuals), strict=True)
    return found | {f"{name}_residual": error for name, error in errors}


def _with_error(name, estimate):
    return {name: estimate.value, f"{name}_se": estimate.error}


def _moments(point: Point):
    """``moment(c0, c1, ...)``: E[sum c_k H_i^k]; by Gauss-Newton where there are outputs."""
    at = (point.params, point.data)
    flat = point.outputs and jax.eval_shape(operators.pure(point.outputs), *at).ndim == 2
    if not flat:
        return lambda *c: operators.moments(point.losses, *at, c)
    blocks = output_space.blocks(point.outputs, point.criterion, *at)
    same = lambda c: (*c, *(0,) * (5 - len(c)))  # one program for all orders
    return lambda *c: output_space.moments(point.outputs, point.criterion, *at, blocks, same(c))
