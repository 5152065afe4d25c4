r"""How gradients of single examples scatter, and how their noise lies to the curvature.

With $F = \frac1n \sum_i g_i g_i^\top$ the noise is $\Sigma = F - \bar g \bar g^\top$. Traces of
products come from random signs: $z^\top A B z = (Az)^\top (Bz)$.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from samscale.flatness.estimates import Estimate
from samscale.flatness.examples import check, count, pure, summed
from samscale.flatness.operators import Operator, fisher, hessian
from samscale.sharpness import trees
from samscale.sharpness.draws import signs


def covariance(losses, params, data, batch_size: int | None = None) -> Operator:
    r"""$\Sigma$, the covariance of the gradients of single examples. Three passes a product."""
    f = fisher(losses, params, data, batch_size)
    gradient = _gradient(pure(losses), params, data, batch_size)
    return Operator(Partial(_less_mean, f, gradient), f.size, f.dtype)


def noise(
    losses, params, data, key, batch_size: int = 1, probes: int = 30, chunk: int | None = None
) -> dict[str, float]:
    r"""Numbers of $\Sigma$ and of H, and their alignment, from the same ``probes`` random signs.

    ``noise_trace``: $tr\,\Sigma$, the mean squared distance of a gradient from the mean one.
    ``noise_frobenius``. ``noise_curvature``: $tr(\Sigma H)$, which sets how fast noise alone raises
    the loss. ``alignment``: $tr(\Sigma H) / (\|\Sigma\|_F \|H\|_F)$, within [-1, 1]; isotropic
    noise would have $tr H / (\sqrt P \|H\|_F)$. ``batch_sharpness``: see there.
    ``chunk``: examples at a time; None, all at once. Five passes a probe.
    """
    sigma, h = (f(losses, params, data, chunk) for f in (covariance, hessian))
    traces, crosses, squares, bent = np.asarray(_draws(sigma, h, key, probes), np.float64)
    trace, cross = Estimate.of(traces), Estimate.of(crosses)
    lengths = math.sqrt(squares.mean() * bent.mean())
    sharp = batch_sharpness(losses, params, data, key, batch_size)
    return {
        "noise_trace": trace.value,
        "noise_trace_se": trace.error,
        "noise_frobenius": math.sqrt(squares.mean()),
        "noise_curvature": cross.value,
        "noise_curvature_se": cross.error,
        "alignment": cross.value / lengths if lengths else 0.0,
        "batch_sharpness": sharp.value,
        "batch_sharpness_se": sharp.error,
    }


def batch_sharpness(
    losses, params, data, key, batch_size: int, rho=0.0, draws: int = 32
) -> Estimate:
    r"""$E_B[g_B^\top H_B g_B / \|g_B\|^2]$: curvature along a step, on the batch it is taken on.

    Training by SGD drives it to $2/\eta$ (Andreyev and Beneventano, 2024, arXiv:2412.20553). With
    ``rho``, gradient and Hessian are those at $w + \rho g_B / \|g_B\|$, where SAM takes its step.
    Batches of ``batch_size`` examples without replacement, ``draws`` of them; a batch of zero
    gradient counts as 0. One gradient (two with ``rho``) and one product of a batch each. Raises
    ``ValueError`` where there are fewer examples than a batch holds.
    """
    check("losses", losses, params, data)
    n = count(data)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size}: must be between 1 and {n}, the examples")
    return Estimate.of(_along_steps(pure(losses), params, data, key, rho, batch_size, draws))


def _mean(losses, params, batch):
    return trees.wide(losses(params, batch)).mean()


@functools.partial(jax.jit, static_argnames="batch_size")
def _gradient(losses, params, data, batch_size):
    slope = lambda batch: jax.grad(lambda w: losses(w, batch).sum())(params)
    return ravel_pytree(summed(slope, data, batch_size))[0] / count(data)


def _less_mean(f, gradient, v):
    return f(v) - gradient * (gradient @ v)


@functools.partial(jax.jit, static_argnames="probes")
def _draws(sigma, h, key, probes):
    def draw(i):
        z = signs(jax.random.fold_in(key, i), (h.size,), h.dtype)
        s, b = sigma(z), h(z)
        return z @ s, s @ b, s @ s, b @ b

    return jnp.stack(jax.lax.map(draw, jnp.arange(probes)))


@functools.partial(jax.jit, static_argnames=("batch_size", "draws"))
def _along_steps(losses, params, data, key, rho, batch_size, draws):
    given, tree = ravel_pytree(params)
    flat = trees.wide(given)

    def draw(key):
        rows = jax.random.permutation(key, count(data))[:batch_size]
        batch = jax.tree.map(lambda a: a[rows], data)
        gradient = jax.grad(lambda w: _mean(losses, tree(w.astype(given.dtype)), batch))
        unit = lambda g: g / jnp.where((length := jnp.linalg.norm(g)) > 0, length, 1)
        at = flat + rho * unit(gradient(flat))
        step = unit(gradient(at))
        return step @ jax.jvp(gradient, (at,), (step,))[1]

    return jax.lax.map(draw, jax.random.split(key, draws))
