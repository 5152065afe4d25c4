r"""All flatness numbers of one point, by name: what ``samscale flatness`` prints and runs record.

A measure is a function ``(point, key) -> {name: number}``; a standard error is named ``NAME_se``.
``MEANING`` has a line for every number.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from samscale.errors import Diverged
from samscale.flatness import ball, estimates, noise, operators, output_space, stability
from samscale.flatness.krylov import eigenpairs

GROUPS = (1, 16, 128)  # examples that m-sharpness lets ascend together


class Point(NamedTuple):
    """A loss where it is measured, and how."""

    losses: Callable  # (params, batch) -> (n,); arrays it holds are arguments where a Partial
    params: Any
    data: Any  # a pytree of arrays, examples along the leading axis
    outputs: Callable | None = None  # (params, batch) -> (n, C)
    criterion: Callable | None = None  # (outputs, batch) -> (n,): losses = criterion of outputs
    mask: Any = None  # like params or of scalars: 0 where weights are pruned, 1 elsewhere
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
    values = {f"lambda_{i + 1}": float(value) for i, value in enumerate(top.values)}
    return {
        **values,
        "lambda_1_residual": float(top.residuals[0]),
        "lambda_min": float(low.values[0]),
        "lambda_min_residual": float(low.residuals[0]),
        **_with_error("trace", seen.trace),
        "frobenius": math.sqrt(squared),
        "frobenius_se": seen.frobenius_squared.error / (2 * math.sqrt(squared)) if squared else 0.0,
        "effective_rank": seen.trace.value**2 / squared if squared else 0.0,
    }


def layers(point: Point, key) -> dict[str, float]:
    """The largest eigenvalue of each layer's own block: about ten products a leaf."""
    h = operators.hessian(point.losses, point.params, point.data)
    found = {}
    for i, (name, mask) in enumerate(operators.of_layers(point.params).items()):
        op = operators.scaled(h, mask)
        top = eigenpairs(op, jax.random.fold_in(key, i), 1, tolerance=1e-2, max_products=60)
        found[f"lambda_1/{name}"] = float(top.values[0])
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
        whole = jax.tree.map(lambda a, m=m: a[: n // m * m], point.data)
        rise = ball.m_sharpness(point.losses, point.params, whole, rho, m, **mask)
        found |= _with_error(f"m_sharpness_{m}", rise)
    d = jnp.abs(ravel_pytree(point.params)[0])
    scaled = operators.scaled(operators.hessian(*at), d)
    found["adaptive_lambda_1"] = eigenpairs(scaled, second, tolerance=1e-2).values[0]
    return found


def linear_stability(point: Point, key) -> dict[str, float]:
    """Sharpness, non-uniformity and the largest stable rates, by Gauss-Newton where outputs are."""
    keys = jax.random.split(key, 8)
    moment = _moments(point)
    a = float(eigenpairs(moment(0, 1), keys[0], tolerance=1e-3).values[0])
    found = {"a": a}
    for k in (2, 3, 4):
        op = moment(*(0,) * k, 1) - moment(0, 1) ** k
        found[f"s{k}"] = stability.spread(op, keys[k], k).value
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


MEASURES: dict[str, Callable] = {
    "curvature": curvature,
    "sharpness": sharpness,
    "stability": linear_stability,
    "noise": gradient_noise,
    "layers": layers,
    "density": density,
}


MEANING = {
    "lambda_1": "largest eigenvalue of the Hessian; ±: some eigenvalue is as near as that",
    "lambda_2": "the next one",
    "lambda_3": "the one after",
    "lambda_min": "smallest eigenvalue; negative: a way down",
    "trace": "sum of all eigenvalues",
    "frobenius": "root of the sum of their squares",
    "effective_rank": "trace^2 / frobenius^2: how many eigenvalues matter",
    "sam_gap": "rise of the loss at SAM's step of length rho",
    "worst_case": "largest rise found within rho",
    "average_case": "mean rise in random directions of length rho",
    "adaptive_lambda_1": "largest eigenvalue in units of each weight; no rescaling changes it",
    "m_sharpness_1": "mean rise of single examples at a SAM step of their own",
    "m_sharpness_16": "the same of groups of 16",
    "m_sharpness_128": "the same of groups of 128",
    "a": "largest eigenvalue of the mean Gauss-Newton matrix (Hessian, for tasks without outputs)",
    "s2": "non-uniformity: how unlike each other examples bend the loss",
    "s3": "the same by third moments",
    "s4": "the same by fourth moments",
    "largest_stable_rate_sgd": "rate up to which linearized SGD, batch 1, stays at such a minimum",
    "largest_stable_rate_sam": "the same for unnormalized SAM at rho",
    "noise_trace": "mean squared distance of an example's gradient from the mean",
    "noise_frobenius": "Frobenius norm of the gradients' covariance",
    "noise_curvature": "trace of covariance times Hessian",
    "alignment": "cosine of covariance and Hessian",
    "batch_sharpness": "curvature along gradients of batches; plain SGD drives it to 2 / rate",
    "negative_share": "share of eigenvalues below -0.001 of the largest",
    "trace_cubed": "sum of cubed eigenvalues",
    "trace_fourth": "sum of their fourth powers",
}


def meaning(name: str) -> str:
    """A line for a number."""
    first, _, layer = name.partition("/")
    return f"that of the block of {layer} alone" if layer else MEANING[first]


def first_line(name: str) -> str:
    """A line for a measure."""
    return MEASURES[name].__doc__.splitlines()[0]


def measured(point: Point, key, names=tuple(MEASURES)) -> dict[str, float]:
    """All numbers of these measures; a largest stable rate that is infinite is left out.

    Raises ``Diverged`` where the loss is not finite, of any example.
    """
    if not np.isfinite(_losses(operators.pure(point.losses), point.params, point.data)).all():
        raise Diverged("the loss of some example is not finite: there is nothing to measure")
    found: dict[str, float] = {}
    for name in names:
        found |= MEASURES[name](point, jax.random.fold_in(key, list(MEASURES).index(name)))
    return {name: float(value) for name, value in found.items() if not math.isinf(value)}


@jax.jit
def _losses(losses, params, data):
    return losses(params, data)


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
