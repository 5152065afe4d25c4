"""Whether outputs, labels and weights fit one another; nothing is broadcast that was not meant to.

Shapes and dtypes are known while a step is traced, so ``ValueError`` is raised there. Values are
looked at where they are known; elsewhere the loss of what is not ``legal`` is to be NaN.
"""

import contextlib
import contextvars

import jax
import jax.numpy as jnp
import numpy as np

_WATCHED = contextvars.ContextVar("labels that a loss was given while somebody watches")


@contextlib.contextmanager
def watched():
    """A list of ``(y, classes)`` for every array of labels that a loss is given meanwhile;
    ``classes``: how many there are, or None for shares from 0 to 1."""
    token = _WATCHED.set([])
    try:
        yield _WATCHED.get()
    finally:
        _WATCHED.reset(token)


def are_classes(y) -> bool:
    """Whether labels are classes, and no real targets: whole numbers, or True and False."""
    dtype = _array(y).dtype
    return bool(jnp.issubdtype(dtype, jnp.integer) or dtype == np.bool_)


def law(classes: int | None) -> str:
    """What each label must be, as words that follow "must be"."""
    return "from 0 to 1, or NaN" if classes is None else f"a class, from 0 to {classes - 1}"


def illegal(y, classes: int | None):
    """Where labels do not satisfy their ``law``, an array of booleans of JAX or NumPy as ``y``."""
    if classes is None:
        return (y < 0) | (y > 1)
    if y.dtype == np.bool_:
        return y & (classes < 2)
    last = min(classes - 1, jnp.iinfo(y.dtype).max)  # of uint8, say, which 300 does not fit in
    return (y < 0) | (y > last)


def classes(loss: str, outputs, y, weight):
    """``(outputs, weight, y, legal)``: outputs (n, ..., classes) in at least float32, weights and
    classes (n, ...), and whether a label is one; it is 0 where it is not."""
    outputs, y = wide(outputs), _array(y)
    if not are_classes(y):
        raise ValueError(f"{loss}: y must hold whole numbers, which are classes, not {y.dtype}")
    if outputs.ndim < 2 or y.shape != outputs.shape[:-1]:
        raise ValueError(
            f"{loss}: y, whole numbers, are classes, and must be shaped as outputs "
            f"{outputs.shape} without the last axis, not {y.shape}; real targets must be floats"
        )
    _watch(y, outputs.shape[-1])
    weight = spread(_weights(loss, weight, y), y)
    weight = jnp.broadcast_to(weight, y.shape)
    _refuse(loss, y, outputs.shape[-1], weight)
    y = jnp.asarray(y)
    wrong = illegal(y, outputs.shape[-1])
    y = jnp.where(wrong, jnp.zeros_like(y), y).astype(jnp.int32)
    return outputs, weight, y, ~wrong | (weight <= 0)


def targets(loss: str, outputs, y, weight):
    """``(outputs, weight, y)``: of one shape (n, ...), in at least float32, and weights (n,)."""
    outputs, y = wide(outputs), _aligned(loss, outputs, y)
    weight = _weights(loss, weight, y)
    if weight.ndim != 1:
        raise ValueError(f"{loss}: weight must be shaped {y.shape[:1]}, not {weight.shape}")
    return outputs, weight, y


def shares(loss: str, outputs, y, weight):
    """``(outputs, weight, y, legal)``: of one shape (n, ...), in at least float32, weights (n,) or
    of labels, and whether a label is missing or from 0 to 1."""
    outputs, given = wide(outputs), y
    y = _aligned(loss, outputs, y)
    _watch(given, None)
    weight = _weights(loss, weight, y)
    _refuse(loss, y, None, weight)
    return outputs, weight, y, ~illegal(y, None) | (spread(weight, y) <= 0)


def spread(weight, like):
    """Weights (n, ...) with as many axes as ``like``, those at the end of length 1."""
    return weight.reshape(weight.shape + (1,) * (like.ndim - weight.ndim))


def wide(x):
    """An array of JAX in float32, or in what is wider."""
    x = jnp.asarray(x)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(x.dtype, jnp.float32)
    return x.astype(dtype)


def _aligned(loss, outputs, y):
    """Real targets in the shape of the outputs; either may lack an axis of length 1 at the end."""
    y = wide(_real(loss, "y", y))
    if y.shape in (outputs.shape, (*outputs.shape, 1)) or (*y.shape, 1) == outputs.shape:
        return y.reshape(outputs.shape)
    raise ValueError(f"{loss}: y must be shaped as outputs, {outputs.shape}, not {y.shape}")


def _real(loss, name, x):
    x = _array(x)
    if x.dtype == np.bool_ or any(jnp.issubdtype(x.dtype, k) for k in (jnp.integer, jnp.floating)):
        return x
    raise ValueError(f"{loss}: {name} must hold real numbers, not {x.dtype}")


def _weights(loss, weight, y):
    """(n,) of examples, or of the leading axes of the labels."""
    weight = wide(_real(loss, "weight", weight))
    if not weight.ndim or weight.shape != y.shape[: weight.ndim]:
        wanted = " or ".join(str(shape) for shape in dict.fromkeys((y.shape[:1], y.shape)))
        raise ValueError(f"{loss}: weight must be shaped {wanted}, not {weight.shape}")
    return weight


def _refuse(loss, y, classes, weight):
    """Raises ``ValueError`` for the first label that counts and is not legal, if that is known."""
    if not (_is_known(y) and _is_known(weight)):
        return
    y, weight = jax.device_get((y, weight))
    wrong = illegal(y, classes) & (spread(weight, y) > 0)
    if wrong.any():
        where = np.argwhere(wrong)[0]
        value = y[tuple(where)]
        raise ValueError(f"{loss}: y{where.tolist()}={value}: must be {law(classes)}")


def _watch(y, classes):
    _WATCHED.get([]).append((y, classes))


def _array(x):
    return x if isinstance(x, (jax.Array, np.ndarray)) else np.asarray(x)


def _is_known(x):
    if isinstance(x, jax.core.Tracer):
        return False
    return not isinstance(x, jax.Array) or x.is_fully_addressable
