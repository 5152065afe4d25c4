"""Randomness has addresses: a key is a function of (seed, purpose, index), never carried or saved.

So a resumed run draws what an uninterrupted one draws, and a study may vary one purpose alone.
"""

import jax

INIT, ORDER, AUGMENT, DROPOUT, PRUNE, ASCENT, MEASURE = range(7)


def address(seed, purpose: int, index=0):
    """The key of a purpose at an index (a step, an epoch). ``seed`` may be traced."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), index)
