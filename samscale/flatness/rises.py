"""Measures of how far the loss rises: in balls of weights, in shares of them, of unit logits."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from samscale.flatness import ball, examples, operators
from samscale.flatness.entries import ASKED, eigenvalues, ends, with_error
from samscale.flatness.krylov import eigenpairs
from samscale.flatness.point import Point
from samscale.named import says

GROUPS = (1, 16, 128)  # examples that m-sharpness lets ascend together
MOST_GROUPS = 128  # of each kind: a network of its own each; the error of their mean is told
ADAPTIVE = 10  # radii of ASAM beside SAM's, by their authors: 0.5 and 0.05
SEARCH = 4  # steps of an ascent, from each of two starts


@says("How far the loss rises in balls of the point's radius: some 70 gradients, 40 losses.")
def sharpness(point: Point, key) -> dict[str, float]:
    first, second, h = *jax.random.split(key), point.hessian()
    at, rho, together = (point.losses, point.params, point.data), point.rho, point.together()
    how = {"mask": point.mask, "batch_size": together}
    bent, _ = ends(h, first, asked=1e-2, most=20)
    steepest = bent.vectors[0]  # as good where SAM's direction is none
    found = {
        "sam_gap": ball.sam_gap(*at, rho, **how).rise,
        "worst_case": ball.worst_case(*at, first, rho, steps=4, toward=steepest, **how).rise,
        **with_error("average_case", ball.average_case(*at, second, radius=rho, **how)),
    }
    n, d = examples.count(point.data), jnp.abs(ravel_pytree(point.params)[0])
    most = min(16, examples.BUDGET // (16 * d.size))  # groups with four vectors each
    for m in (m for m in GROUPS if 2 * m <= n):
        size = min(n // m, MOST_GROUPS) * m
        whole = jax.tree.map(lambda a, size=size: a[:size], point.data)
        how = {"mask": point.mask, "chunk": max(1, min(most, (together or n) // m))}
        rise = ball.m_sharpness(point.losses, point.params, whole, rho, m, **how)
        found |= with_error(f"m_sharpness_{m}", rise)
    scaled = operators.scaled(h, d)
    return found | eigenvalues(eigenpairs(scaled, second, tolerance=ASKED), "adaptive_lambda_1")


@says("How far it rises in cubes, in shares of each weight, of unit logits: some 60 gradients.")
def balls(point: Point, key) -> dict[str, float]:
    keys = jax.random.split(key, 6)
    rho, corner = point.rho, point.rho / math.sqrt(moving(point))  # cubes: inside the l2 ball
    how = {"mask": point.mask, "batch_size": point.together()}

    def worst(losses, key, radius, norm="linf", adaptive=True):
        at = losses, point.params, point.data, key, radius, norm, adaptive
        return ball.worst_case(*at, steps=SEARCH, **how).rise

    at, wide = (point.losses, point.params, point.data), ADAPTIVE * rho
    average = ball.average_case(*at, keys[0], radius=wide, adaptive=True, **how)
    found = {
        "worst_case_linf": worst(point.losses, keys[1], corner, adaptive=False),
        "adaptive_sam_gap": ball.sam_gap(*at, wide, adaptive=True, **how).rise,
        "adaptive_worst_case": worst(point.losses, keys[2], wide, "l2"),
        "adaptive_worst_case_linf": worst(point.losses, keys[3], ADAPTIVE * corner),
        **with_error("adaptive_average_case", average),
    }
    losses = of_normalized(point)
    if losses is not None:
        found |= {
            "normalized_worst_case": worst(losses, keys[4], wide, "l2"),
            "normalized_worst_case_linf": worst(losses, keys[5], ADAPTIVE * corner),
        }
    return found


def of_normalized(point: Point) -> Partial | None:
    r"""The losses of $(z - \bar z) / \|z - \bar z\|$ instead of each example's outputs z.

    Longer logits alone make a cross entropy small and flat; this is blind to their length. None
    where there are no two outputs, or where a constant added to all of them changes the loss, which
    is then none of logits. Source: Andriushchenko et al., 2023, arXiv:2302.07011, and its code.
    """
    if point.outputs is None or point.criterion is None:
        return None
    few = jax.tree.map(lambda a: a[:8], point.data)
    z = point.outputs(point.params, few)
    if z.ndim != 2 or z.shape[1] < 2:
        return None
    plain, moved = (point.criterion(at, few) for at in (z, z + 1))
    if not jnp.allclose(plain, moved, rtol=1e-3, atol=1e-5):
        return None
    return Partial(_Normalized(point.criterion), examples.pure(point.outputs))


@dataclasses.dataclass(frozen=True)  # equal for one criterion, so that points share programs
class _Normalized:
    criterion: Callable

    def __call__(self, outputs, params, batch):
        z = outputs(params, batch)
        z = z - z.mean(1, keepdims=True)
        square = jnp.square(z).sum(1, keepdims=True)
        length = jnp.sqrt(jnp.where(square > 0, square, 1))  # whose derivative is finite at zero
        return self.criterion(z / length, batch)


def moving(point):
    """How many weights a ball moves."""
    if point.mask is None:
        return sum(w.size for w in jax.tree.leaves(point.params))
    both = point.mask, point.params
    kept = jax.tree.map(lambda m, w: (jnp.broadcast_to(m, w.shape) != 0).sum(), *both)
    return max(1, int(sum(jax.tree.leaves(kept))))
