"""How many runs of one program are trained at a time: a matter of time, never of their numbers."""

import jax

from samscale.config import Config
from samscale.training import memory
from samscale.training.compiled import compiled

MOST = 8
WORK = 1e7  # parameters x batch up to which the host's work between programs counts
SHARE = 0.5  # of the free memory: the rest is for data, evaluation and whatever else runs
COPIES = 3  # of a state: before a chunk of steps, after it, and on its way to a checkpoint


def best(config: Config, wanted: int = 0) -> int:
    """``wanted`` replicas, or (0) as many as pay, as far as their states fit; at least 1.

    Convolutions take so long that the host's work between them does not count.
    """
    state = compiled(config).shapes().state
    params = jax.tree.leaves(state.params)
    if not wanted:
        flat = all(leaf.ndim < 3 for leaf in params)
        work = sum(leaf.size for leaf in params) * config.batch_size
        wanted = MOST if flat and work <= WORK else 1
    if wanted == 1:
        return 1
    held = COPIES * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return max(1, min(wanted, int(SHARE * memory.free() / held)))
