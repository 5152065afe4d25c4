"""What a tree of parameters is made of: sizes, kernels, the scales of normalization."""

import jax
import jax.numpy as jnp

from samscale.sharpness import trees
from samscale.sharpness.promotion import standard


def absolute(params, eta=0.0, where=lambda params: jax.tree.map(lambda w: True, params)):
    r"""$|w| + \eta$ for leaves at which ``where(params)`` is true; 1 for others."""

    @standard
    def measure(mine, w):
        return trees.wide(jnp.abs(w)) + eta if mine else jnp.ones((), w.dtype)

    return jax.tree.map(measure, where(params), params)


def kernels(params):
    """True for the leaves called ``kernel``, ``weight`` or ``w``. ``ValueError`` where none is."""
    found = _map_words(lambda words: words[-1:] in (("kernel",), ("weight",), ("w",)), params)
    if not any(jax.tree.leaves(found)) and jax.tree.leaves(params):
        raise ValueError(
            "where=None: no leaf is called 'kernel', 'weight' or 'w'; where(params) says which "
            "are kernels, in a tree of booleans"
        )
    return found


def normalization(params):
    """True for the leaves beside one called ``scale``. ``ValueError`` where there is none."""
    layers = set()
    _map_words(lambda words: words[-1:] == ("scale",) and layers.add(words[:-1]), params)
    if not layers and jax.tree.leaves(params):
        raise ValueError(
            "where=None: the network has no normalization layers, no leaf is called 'scale'; "
            "where(params) says which leaves are theirs, in a tree of booleans"
        )
    return _map_words(lambda words: words[:-1] in layers, params)


def _map_words(f, params):
    """``f`` of the words that lead to each leaf, in a pytree of dicts or of modules."""

    def at(path, _):
        words = tuple(getattr(part, "key", getattr(part, "name", part)) for part in path)
        return f(words[:-1] if words[-1:] == ("value",) else words)  # Flax NNX wraps arrays

    return jax.tree_util.tree_map_with_path(at, params)
