"""What a task of the user's own must be: found out by shapes, before anything is written."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

OUTSIDE = "keep what is no array outside, as nnx.split and eqx.partition do"


def check_leaves(task, batch_size: int) -> None:
    """Raises ``ValueError``, which names the leaf, for parameters that cannot be trained, and for
    statistics that cannot be carried along and saved. Traces ``init`` and ``loss``."""
    found: dict[str, Any] = {}

    def begin(key):
        found["params"], found["stats"] = task.init(key)
        return [leaf for leaf in jax.tree.leaves(dict(found)) if _is_array(leaf)]

    jax.eval_shape(begin, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        _check_leaf(_name(path), leaf, trained=path[0].key == "params")
    if not sum(np.size(leaf) for leaf in jax.tree.leaves(found["params"])):
        raise ValueError("init: params hold no numbers, so there is nothing to train")
    params, stats = jax.eval_shape(task.init, jax.random.key(0))
    size = min(batch_size, *map(len, task.train.values()))
    _check_loss("train", task, params, stats, _batch(task.train, size), True)
    for name in ("validation", "test"):
        split = getattr(task, name)
        if len(next(iter(split.values()))):
            weight = {"weight": jax.ShapeDtypeStruct((batch_size,), np.float32)}
            batch = _batch(split, batch_size) | weight
            _check_loss(name, task, params, stats, batch, False)


def _check_leaf(name, leaf, trained):
    if not _is_array(leaf):
        kind = type(leaf).__name__
        raise ValueError(f"init: {name} must be an array, not a {kind} ({leaf!r}); {OUTSIDE}")
    dtype, form = jnp.result_type(leaf), jax.typeof(leaf).str_short()
    if trained and not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"init: {name} must be floating-point to have a gradient, not {form}; return it in "
            "stats, which are carried along and not trained"
        )
    if trained and jnp.finfo(dtype).bits < 16:
        raise ValueError(f"init: {name} must have at least 16 bits to be trained, not {form}")


def _check_loss(split, task, params, stats, batch, train):
    """What loss returns in training must be the statistics that the next step begins from."""
    try:
        sums, new = jax.eval_shape(
            lambda *at: task.loss(*at, train), params, stats, batch, jax.random.key(0)
        )
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(
            f"loss of a batch of {split}: {type(error).__name__}: {words[:500]}"
        ) from error
    for name, value in dict(sums).items():
        if value.shape or not jnp.issubdtype(value.dtype, np.number):
            raise ValueError(f"loss: sums[{name!r}] must be one number, not {_form(value)}")
    if not train:
        return
    before, after = (
        {_name(path): _form(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in ({"stats": stats}, {"stats": new})
    )
    for name in [*before, *after]:
        if before.get(name) != after.get(name):
            was, now = before.get(name, "absent"), after.get(name, "absent")
            raise ValueError(f"loss: {name} must stay as init makes it, {was}, not become {now}")
    if jax.tree.structure(stats) != jax.tree.structure(new):
        raise ValueError("loss: stats must come back in the containers that init makes")


def _batch(split, size):
    return {k: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype) for k, a in split.items()}


def _is_array(leaf) -> bool:
    """Whether JAX takes it as one: arrays, random keys, Python's numbers."""
    try:
        return jax.typeof(leaf) is not None
    except TypeError:
        return False


def _form(leaf) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _name(path) -> str:
    """``params['Dense_0']['kernel']`` for a path that begins with the word ``params``."""
    return f"{path[0].key}{jax.tree_util.keystr(path[1:])}"
