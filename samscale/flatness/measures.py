r"""All flatness numbers of one point, by name: what ``samscale flatness`` prints and runs record.

A measure is a function ``(point, key) -> {name: number}``; ``NAME_se`` is a standard error,
``NAME_residual`` an eigenvalue's, and ``NAME_converged`` is there, 0, where that is larger than was
asked for. ``meanings`` has a line for every number, ``NEEDS`` what a point may lack.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from samscale.errors import Diverged
from samscale.flatness import (
    estimates,
    examples,
    features,
    noise,
    operators,
    path,
    rises,
    thresholds,
)
from samscale.flatness.entries import (
    ASKED,
    SMALL,
    eigenvalues,
    ends,
    exactly,
    spectrum_of_few,
    with_error,
)
from samscale.flatness.point import Point
from samscale.named import says

NEGLIGIBLE = 1e-2  # of the largest eigenvalue: what 50 steps of Lanczos tell from the many zeros


@says("Ends of the Hessian's spectrum, trace and norm: some 60 products with the Hessian.")
def curvature(point: Point, key) -> dict[str, float]:
    first, second = jax.random.split(key)
    h = point.hessian()
    names = [*(f"lambda_{i + 1}" for i in range(min(3, h.size))), "lambda_min"]
    if h.size > 3:
        found, asked = ends(h, first, 4, "both", (ASKED, ASKED, ASKED, 5e-2), 80)
    else:
        found, asked = ends(h, first, h.size)
        whole = [*range(h.size), -1]
        found = found._replace(values=found.values[whole], residuals=found.residuals[whole])
    seen = exactly(h) if h.size <= SMALL else estimates.probed(h, second, probes=30)
    squared = seen.frobenius_squared.value
    return {
        **eigenvalues(found, *names, asked=asked),
        **with_error("trace", seen.trace),
        "frobenius": math.sqrt(squared),
        "frobenius_se": seen.frobenius_squared.error / (2 * math.sqrt(squared)) if squared else 0.0,
        "effective_rank": seen.trace.value**2 / squared if squared else 0.0,
    }


@says("The largest eigenvalue of each layer's own block: some ten products a layer.")
def layers(point: Point, key) -> dict[str, float]:
    h, found = point.hessian(), {}
    for i, (name, mask) in enumerate(operators.of_layers(point.params).items()):
        block, draw = operators.scaled(h, mask), jax.random.fold_in(key, i)
        top, asked = ends(block, draw, most=60, weights=mask.sum())
        found |= eigenvalues(top, f"lambda_1/{name}", asked=asked)
    return found


@says("How noisy gradients of single examples are, and how aligned with the Hessian.")
def gradient_noise(point: Point, key) -> dict[str, float]:
    at = (point.losses, point.params, point.data)
    return noise.noise(*at, key, batch_size=point.batch_size, chunk=point.together())


@says("Of all eigenvalues, five by themselves, the rest by probes: moments, share below zero.")
def density(point: Point, key) -> dict[str, float]:
    first, second = jax.random.split(key)
    h = point.hessian()
    if h.size <= SMALL:
        values = spectrum_of_few(h)
        share = (values < -NEGLIGIBLE * np.abs(values).max()).sum()
        cubes, fourths = (estimates.Estimate((values**k).sum(), 0.0, 1) for k in (3, 4))
    else:
        probes = 2 if h.size < 10_000 else 1  # the more eigenvalues, the less one probe differs
        seen = estimates.spectrum(h, first, 50, probes, apart=5)
        floor = -NEGLIGIBLE * np.abs(seen.nodes).max()
        share = seen.trace_of(lambda x: 1.0 * (x < floor)).value
        powers = estimates.cubes_and_fourths(h, second, 10, seen)  # two do not tell their error
        cubes, fourths = map(estimates.Estimate.of, powers)
    moments = with_error("trace_cubed", cubes) | with_error("trace_fourth", fourths)
    return {"negative_share": share / rises.moving(point), **moments}


@says("Smoothness and PL constant along the last epoch's way: eleven gradients.")
def way(point: Point, key) -> dict[str, float]:
    del key
    at = (point.losses, point.before, point.params, point.data)
    found = path.along(*at, batch_size=point.together())
    return {"beta_hat": found.smoothness, "alpha_hat": found.pl}


@says("Units that changed sides since initialization, and the rank of what the last layer sees.")
def of_features(point: Point, key) -> dict[str, float]:
    del key
    return features.compared(point.activations, point.start, point.params, point.data)


MEASURES: dict[str, Callable] = {
    "curvature": curvature,
    "sharpness": rises.sharpness,
    "stability": thresholds.linear_stability,
    "noise": gradient_noise,
    "layers": layers,
    "density": density,
    "features": of_features,
    "path": way,
    "balls": rises.balls,
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
    """All finite ones of ``numbers``. Raises ``Diverged`` as it does."""
    return {k: v for k, v in numbers(point, key, names).items() if math.isfinite(v)}


def numbers(point: Point, key, names=tuple(MEASURES)) -> dict[str, float]:
    """All numbers of these measures, some may be infinite; without measures the point lacks.

    Raises ``Diverged`` where the loss is not finite, of any example, and what ``hessian`` does.
    """
    point.hessian()
    losses = examples.pure(point.losses)
    if _broken(losses, point.params, point.data, point.together()):
        raise Diverged("the loss of some example is not finite: there is nothing to measure")
    found: dict[str, float] = {}
    for name in (name for name in names if not lacking(point, name)):
        found |= MEASURES[name](point, jax.random.fold_in(key, list(MEASURES).index(name)))
    return {name: float(value) for name, value in found.items()}


@functools.partial(jax.jit, static_argnames="size")
def _broken(losses, params, data, size):
    """How many examples have no finite loss."""
    return examples.summed(lambda batch: (~jnp.isfinite(losses(params, batch))).sum(), data, size)
