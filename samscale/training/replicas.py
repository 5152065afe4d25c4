"""How many runs of one program are trained at a time."""

import math

import jax
import numpy as np

from samscale.config import Config
from samscale.training import memory
from samscale.training.compiled import compiled
from samscale.training.method import is_uneven

MOST = 8
WORK = 1e7  # parameters x batch up to which replicas are faster on CPUs: docs/results.md
SHARE = 0.5  # of the free memory: the rest is for data, evaluation and whatever else runs


def best(config: Config, wanted: int = 0) -> int:
    """``wanted`` replicas, or (0) as many as pay, as far as they fit; at least 1.

    Networks with convolutions run in turn: their products keep all cores busy one by one.
    """
    task = compiled(config).task
    params, stats = jax.eval_shape(task.init, jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if not wanted:
        if is_uneven(config):  # a branch under vmap is taken both ways
            return 1
        flat = all(leaf.ndim < 3 for leaf in jax.tree.leaves(params))
        wanted = MOST if flat and size * config.batch_size <= WORK else 1
    if wanted == 1:
        return 1
    # weights, two gradients, the ascended weights, moments, and the maps of a pass: float32
    held = 4 * (6 * size + _maps(task, params, stats, config.batch_size))
    return max(1, min(wanted, int(SHARE * memory.free() / held)))


def _maps(task, params, stats, batch_size) -> int:
    """Numbers that a forward pass computes in all: no fewer than its gradient keeps of them."""
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, *np.shape(a)[1:]), a.dtype)
        for name, a in task.train.items()
    }
    loss = lambda *at: task.loss(*at, True)
    jaxpr = jax.make_jaxpr(loss)(params, stats, batch, jax.random.key(0))
    return sum(math.prod(v.aval.shape) for equation in jaxpr.eqns for v in equation.outvars)
