"""Batch norm whose sums take all cores of a CPU; names, shapes and statistics are those of Flax.

XLA reduces a map to a number a channel on one core of a CPU, four times in a training step (two
moments, and the gradients of scale and bias). Here each example is summed first, behind a barrier
that keeps XLA from fusing the two sums into one again. On other devices there is no barrier.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class BatchNorm(nn.Module):
    r"""Over all axes but the last, (n, ..., c): $(x - m)\, s / \sqrt{v + \epsilon} + b$.

    Moments m, v are computed in float32 at least, v as $E[x^2] - m^2$; ``mean`` and ``var`` in
    ``batch_stats`` are their running means (Ioffe and Szegedy, 2015; arXiv:1502.03167).
    """

    use_running_average: bool
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Any = None  # of the result; parameters and statistics stay float32
    scale_init: Any = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x):
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        dtype = self.dtype or jnp.promote_types(x.dtype, scale.dtype)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        m, v = (mean.value, var.value) if self.use_running_average else _moments(x)
        if not self.use_running_average and not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * m
            var.value = self.momentum * var.value + (1 - self.momentum) * v
        factor = scale * lax.rsqrt(v + self.epsilon)
        return (x * _spread(factor, x) + _spread(bias - m * factor, x)).astype(dtype)


def _moments(x):
    count = x.size // x.shape[-1]
    mean, square = _total(x) / count, _total(x * x) / count
    return mean, jnp.maximum(square - mean * mean, 0)


def _total(x):
    """(n, ..., c) -> (c,)."""
    return _barrier(x.sum(range(1, x.ndim - 1))).sum(0)


def _spread(v, x):
    """(c,) -> the shape of x; its transpose, which the gradient needs, is ``_total``."""
    rows = _barrier(jnp.broadcast_to(v, (x.shape[0], *v.shape)))
    return jnp.broadcast_to(rows.reshape(x.shape[0], *[1] * (x.ndim - 2), -1), x.shape)


def _barrier(x):
    return lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x
