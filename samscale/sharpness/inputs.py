"""What a method is given: parameters, and a function that takes their gradient.

Both are checked by structure, shape and dtype while a step is traced; nothing is computed for it.
"""

import numbers

import jax
import jax.numpy as jnp
import numpy as np

from samscale.sharpness.promotion import of_caller

ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def parameters(tree):
    """``tree`` with numbers of Python and NumPy as arrays.

    Raises ``ValueError``, naming the path, for a leaf that is no array of floating-point or complex
    numbers.
    """
    return jax.tree_util.tree_map_with_path(_parameter, tree)


def _parameter(path, leaf):
    if not isinstance(leaf, ARRAYS) and hasattr(leaf, "__jax_array__"):
        leaf = leaf.__jax_array__()
    if not isinstance(leaf, (*ARRAYS, numbers.Number)):
        what = _called(leaf)
    elif not jnp.issubdtype(_dtype(leaf), jnp.inexact):
        what = _dtype(leaf)
    elif isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return leaf
    else:
        return jnp.array(leaf, jnp.result_type(leaf))
    raise ValueError(
        f"params{jax.tree_util.keystr(path)}: must be an array of floating-point numbers, not "
        f"{what}; params must hold what is trained and nothing else, as after params, static = "
        "eqx.partition(model, eqx.is_inexact_array) or graph, params, rest = nnx.split(model, "
        "nnx.Param, ...)"
    )


def _dtype(leaf):
    return leaf.dtype if isinstance(leaf, ARRAYS) else jnp.result_type(leaf)


def real_parameters(tree, method):
    """``tree``. Raises ``ValueError``, naming the path, where it has complex numbers, which
    ``method`` is not defined for."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)}: must be real for {method}, not {leaf.dtype}"
            )
    return tree


def gradient_of(value_and_grad_fn):
    """``value_and_grad_fn``, what it returns being checked as ``gradients`` does."""
    call = of_caller(value_and_grad_fn) if value_and_grad_fn is not None else None

    def checked(params, *args):
        return gradients(call(params, *args), params)

    return checked


def gradients(found, params):
    """``(out, grads)`` with arrays for numbers, in the dtypes that the gradients have.

    Raises ``ValueError``, naming the path, where ``grads`` is no tree of arrays like ``params``.
    """
    if not (isinstance(found, (tuple, list)) and len(found) == 2):
        raise ValueError(
            f"value_and_grad_fn: must return (out, grads), as jax.value_and_grad does, not "
            f"{_called(found)}"
        )
    out, grads = found
    same_tree("grads", grads, params)
    return out, jax.tree_util.tree_map_with_path(_gradient, grads, params)


def _gradient(path, g, w):
    if isinstance(g, (*ARRAYS, numbers.Number)) and jnp.shape(g) == jnp.shape(w):
        if jnp.issubdtype(_dtype(g), jnp.inexact):
            return g if isinstance(g, jax.Array) else jnp.array(g, jnp.result_type(g))
        if jnp.issubdtype(_dtype(g), jnp.integer):  # the 0 of a constant
            return jnp.asarray(g, w.dtype)
    found = f"{g.dtype}{[*jnp.shape(g)]}" if isinstance(g, ARRAYS) else _called(g)
    raise ValueError(
        f"grads{jax.tree_util.keystr(path)}: must be floating-point numbers shaped as params, "
        f"{[*jnp.shape(w)]}, not {found}"
    )


def same_tree(name, tree, params):
    """Raises ``ValueError`` where ``tree`` has not the leaves and the containers of ``params``."""
    if jax.tree.structure(tree) == jax.tree.structure(params):
        return
    own, wanted = (
        [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(t)]
        for t in (tree, params)
    )
    differs = [*(p for p in wanted if p not in own), *(p for p in own if p not in wanted)]
    where = f"they differ at {differs[0] or 'the top'}" if differs else "their containers differ"
    raise ValueError(f"{name}: must be a tree like params, and {where}")


def same_shapes(name, tree, params):
    """Raises ``ValueError``, naming the path, where a leaf has another shape than its parameter:
    added, it would broadcast."""
    same_tree(name, tree, params)
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(params), strict=True)
    for (path, x), w in pairs:
        if jnp.shape(x) != jnp.shape(w):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: must be shaped as params, "
                f"{[*jnp.shape(w)]}, not {[*jnp.shape(x)]}"
            )


def in_dtypes_of(like, tree):
    """``tree`` in the dtypes of ``like``."""

    def cast(x, of):
        x = jnp.asarray(x)
        return x if x.dtype == of.dtype else x.astype(of.dtype)  # a key has its own alone

    return jax.tree.map(cast, tree, like)


def whole(name, value):
    """``value`` as an int. Raises ``ValueError`` unless it is a whole number of at least 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}: must be a whole number of at least 1")
    return int(value)


def _called(thing):
    """A short name of something that is no array."""
    name = getattr(thing, "__name__", None) if callable(thing) else None
    return f"the function {name}" if name else type(thing).__name__
