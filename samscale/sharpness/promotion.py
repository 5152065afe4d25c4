"""Arithmetic that stands under ``jax_numpy_dtype_promotion="strict"``.

Norms and ascents mix dtypes on purpose: float32 sums of bfloat16 entries, radii of any dtype. They
are computed under JAX's standard promotion, whatever the caller has set; the caller's own functions
run under the caller's setting.
"""

import contextvars
import functools

import jax

_CALLER = contextvars.ContextVar("the promotion that the caller has set", default=None)


def standard(f):
    """``f`` under JAX's standard promotion of dtypes."""

    @functools.wraps(f)
    def under_standard(*args, **kwargs):
        mode = jax.config.jax_numpy_dtype_promotion
        if mode == "standard":
            return f(*args, **kwargs)
        token = _CALLER.set(mode)
        try:
            with jax.numpy_dtype_promotion("standard"):
                return f(*args, **kwargs)
        finally:
            _CALLER.reset(token)

    return under_standard


def of_caller(f):
    """``f``, a function that a caller has given to what is ``standard``, under its own setting."""

    @functools.wraps(f)
    def under_its_own(*args, **kwargs):
        mode = _CALLER.get()
        if mode is None:
            return f(*args, **kwargs)
        with jax.numpy_dtype_promotion(mode):
            return f(*args, **kwargs)

    return under_its_own
