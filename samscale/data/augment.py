"""Random transformations of a batch of images, as pure functions of a key.

Every entry maps ``(key, x)`` to an array of the shape and dtype of ``x``, (n, H, W, C), and treats
each example on its own, so it may run inside a scan and under ``vmap``.
"""

import jax
import jax.numpy as jnp


def none(key, x):
    return x


def crop_flip(key, x, pad=4):
    """Mirror half of the images, then cut each at random out of itself with ``pad`` zeros around.

    The zeros are those of the raw bytes, hence black.
    """
    n, *shape = x.shape
    key_flip, key_crop = jax.random.split(key)
    flip = jax.random.bernoulli(key_flip, shape=(n, 1, 1, 1))
    corners = jax.random.randint(key_crop, (n, 2), 0, 2 * pad + 1)
    # Flip first: as a flip of crops, or as one gather, XLA on a CPU takes several times as long.
    padded = jnp.pad(jnp.where(flip, x[:, :, ::-1], x), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    crop = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)
    return jax.vmap(crop)(padded, corners)


AUGMENTATIONS = {"none": none, "crop_flip": crop_flip}
