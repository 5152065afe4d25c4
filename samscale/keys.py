"""Randomness has addresses: a key is a function of (seed, purpose, index), never carried or saved.

So a resumed run draws what an uninterrupted one draws, and a study may vary one purpose alone.
"""

import math

import jax
import jax.numpy as jnp

INIT, ORDER, AUGMENT, DROPOUT, PRUNE, ASCENT, MEASURE = range(7)


def address(seed, purpose: int, index=0):
    """The key of a purpose at an index (a step, an epoch). ``seed`` may be traced."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), purpose), index)


def signs(key, shape, dtype):
    """Independent +1 and -1, a random bit each; of complex numbers, both parts are of length 1/2.

    A thirtieth of the random words of normal numbers, which on a CPU cost what a gradient does.
    """
    if jnp.issubdtype(dtype, jnp.complexfloating):
        real = jnp.finfo(dtype).dtype
        return jax.lax.complex(*signs(key, (2, *shape), real)) / math.sqrt(2)
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1
    return 1 - 2 * bits.reshape(-1)[:size].reshape(shape).astype(dtype)
