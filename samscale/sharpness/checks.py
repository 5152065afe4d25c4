"""Numbers that methods are given."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def check(name, number, least=0.0, most=math.inf, *, above=None, below=None):
    """Raises ``ValueError`` for what is not finite, or not in the range; the ends ``above`` and
    ``below`` are not part of it.

    The range is looked at in float64, whatever dtype holds the number. What is traced, or lies on
    the devices of other processes, is not known here and is let pass.
    """
    if isinstance(number, jax.Array) and not _is_known(number):
        return
    least = -math.inf if above is not None else least
    words = [] if (above, below) != (None, None) else ["finite"]
    words += [f"at least {least:g}"] if least > -math.inf else []
    words += [f"greater than {above:g}"] if above is not None else []
    words += [f"at most {most:g}"] if most < math.inf else []
    words += [f"less than {below:g}"] if below is not None else []
    value = _real(number)
    if value is not None:
        fits = np.isfinite(value) & (value >= least) & (value <= most)
        fits &= (above is None or value > above) & (below is None or value < below)
    if value is None or not np.all(fits):
        raise ValueError(f"{name}={number!r}: must be {' and '.join(words)}")


def _real(number):
    """In float64; None for what is no real number."""
    if isinstance(number, jax.Array):
        number = jax.device_get(number)
    value = number if hasattr(number, "dtype") else np.asarray(number)
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    return np.asarray(value).astype(np.float64) if real else None


def _is_known(array):
    return not isinstance(array, jax.core.Tracer) and array.is_fully_addressable
