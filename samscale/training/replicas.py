"""How many runs of one program are trained at a time."""

import os

import jax

from samscale.config import Config
from samscale.training.compiled import compiled
from samscale.training.method import is_uneven

MOST = 8
WORK = 1e7  # parameters x batch up to which replicas are faster on CPUs: docs/results.md
SHARE = 0.25  # of the free memory, for what is known; activations come on top


def best(config: Config, wanted: int = 0) -> int:
    """``wanted`` replicas, or (0) as many as pay, as far as they fit; at least 1.

    Networks with convolutions run in turn: their products keep all cores busy one by one.
    """
    params, _ = jax.eval_shape(compiled(config).task.init, jax.random.key(0))
    leaves = jax.tree.leaves(params)
    size = sum(leaf.size for leaf in leaves)
    if not wanted:
        if is_uneven(config):  # a branch under vmap is taken both ways
            return 1
        small = size * config.batch_size <= WORK and all(leaf.ndim < 3 for leaf in leaves)
        wanted = MOST if small else 1
    held = 4 * 6 * size  # weights, two gradients, the ascended weights, moments: float32
    return max(1, min(wanted, int(SHARE * _free() / held)))


def _free() -> float:
    """Bytes that the device has left; of the host's memory where it does not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    pages = next(n for n in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES") if n in os.sysconf_names)
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
