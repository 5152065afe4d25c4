"""A tree of arrays as bytes: each leaf under its path, whatever containers lead to it.

Containers (dicts, named tuples, dataclasses, modules of NNX or Equinox, nodes that a user has
registered) are code and are not stored: what is read is put into a tree that the program has built.
A typed random key is stored as its numbers and the name of its generator.
"""

from typing import Any

import jax
import numpy as np
from flax import serialization

KEY = "random key"  # of an entry that is one: the name of its generator


def to_bytes(tree: Any) -> bytes:
    """The leaves of ``tree``: arrays of any dtype, random keys, Python's numbers."""
    return serialization.msgpack_serialize({path: _stored(x) for path, x in by_path(tree).items()})


def read(content: bytes) -> dict[str, Any]:
    """Path -> leaf, of what ``to_bytes`` made. Raises ``ValueError`` where it is no such thing."""
    try:
        found = serialization.msgpack_restore(content)
    except Exception as error:  # msgpack has many, not all of one kind
        raise ValueError(f"no leaves can be read from it: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no leaves by their paths")
    return found


def fill(saved: dict[str, Any], like: Any) -> Any:
    """The tree ``like``, whose leaves may be abstract, with the leaves that ``read`` has found.

    Raises ``ValueError``, which names the leaf, where paths, shapes or dtypes differ.
    """
    wanted = by_path(like)
    for path in wanted:
        if path not in saved:
            raise ValueError(f"it has no leaf {path}")
    for path in saved:
        if path not in wanted:
            raise ValueError(f"its leaf {path} is not one of this run's")
    found = [_restored(path, saved[path], leaf) for path, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def by_path(tree: Any) -> dict[str, Any]:
    """Path -> leaf, in the order of ``jax.tree.leaves``.

    A node may give several of its children one name; those after the first are numbered.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, number = jax.tree_util.keystr(path), 1
        while name in found:
            number += 1
            name = f"{jax.tree_util.keystr(path)} ({number})"
        found[name] = leaf
    return found


def is_key(leaf: Any) -> bool:
    """Whether a leaf, which may be abstract, holds typed random keys."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def stack(trees) -> Any:
    """One tree of several, whose leaves stand along a new first axis."""
    together = lambda *x: jax.numpy.stack(x) if is_key(x[0]) else np.stack(x)
    return jax.tree.map(together, *trees)


def row(tree: Any, i: int) -> Any:
    """Entry ``i`` of every leaf's first axis, on the host but for random keys."""
    return jax.tree.map(lambda a: a[i] if is_key(a) else np.asarray(a)[i], tree)


def _stored(leaf):
    if is_key(leaf):
        return {KEY: str(jax.random.key_impl(leaf)), "data": np.asarray(jax.random.key_data(leaf))}
    return leaf if isinstance(leaf, bool | int | float | complex) else np.asarray(leaf)


def _restored(path, saved, like):
    if isinstance(saved, dict):
        saved = jax.random.wrap_key_data(saved["data"], impl=saved[KEY])
    if (found := _form(saved)) != (must := _form(like)):
        raise ValueError(f"its leaf {path} is {found}, not {must}")
    return saved


def _form(leaf) -> str:
    if not hasattr(leaf, "dtype"):
        return type(leaf).__name__
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
