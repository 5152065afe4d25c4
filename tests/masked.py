"""What masks remove, counted and laid out."""

import jax
import numpy as np


def removed(mask):
    """How many weights a mask removes in every layer that it has an array for."""
    kernels = {name: leaves["kernel"] for name, leaves in mask.items() if "kernel" in leaves}
    return {name: int((~m).sum()) for name, m in kernels.items() if m.ndim}


def everything(mask):
    return np.concatenate([np.ravel(m["kernel"]) for m in mask.values() if "kernel" in m])


def same(received, expected):
    jax.tree.map(np.testing.assert_array_equal, received, expected)
