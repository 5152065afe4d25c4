"""Random numbers in the shapes of parameters."""

import math

import jax
import jax.numpy as jnp


def drawn(sampler, key, tree):
    """``sampler(key, shape, dtype)`` for every leaf, with a key of its own."""
    leaves, structure = jax.tree.flatten(tree)
    draw = lambda key, x: sampler(key, x.shape, x.dtype)
    return structure.unflatten(map(draw, jax.random.split(key, len(leaves)), leaves))


def signs(key, shape, dtype):
    """Independent +1 and -1, a random bit each; of complex numbers either part's, of length 1.

    A thirtieth of the random words of normal numbers, which on a CPU cost what a gradient does.
    """
    if jnp.issubdtype(dtype, jnp.complexfloating):
        real = jnp.finfo(dtype).dtype
        return jax.lax.complex(*signs(key, (2, *shape), real)) / math.sqrt(2)
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1
    return 1 - 2 * bits.reshape(-1)[:size].reshape(shape).astype(dtype)
