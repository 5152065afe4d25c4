"""Which leaves of a tree of parameters are kernels, by the names that lead to them."""

import jax

NAMES = ("weight", "w")  # other libraries' words for it, and for the scales of normalization


def names(path) -> tuple[str, ...]:
    """The words of a path to a leaf, through dicts, sequences and modules."""
    words = tuple(str(_word(part)) for part in path)
    return words[:-1] if words[-1:] == ("value",) else words  # Flax NNX wraps its arrays


def layer(path) -> tuple[str, ...]:
    """What leads to the module that holds a leaf; the leaf's own name where none does."""
    words = names(path)
    return words[:-1] or words


def is_kernel(path, leaf) -> bool:
    """True for a leaf called ``kernel`` (Flax), or ``weight`` or ``w`` of two axes or more."""
    (last,) = names(path)[-1:] or ("",)
    return last == "kernel" or (last in NAMES and leaf.ndim > 1)


def kernels(params):
    """True at the kernels: not for biases and the scales of normalization."""
    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _word(part):
    found = (getattr(part, name) for name in ("key", "name", "idx") if hasattr(part, name))
    return next(found, part)
