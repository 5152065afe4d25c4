"""Numbers that methods are given."""

import math

import jax
import numpy as np


def check(name, number, least=0.0, most=math.inf):
    """Raises ``ValueError`` for what is not finite, or not in the range.

    What is traced, or lies on the devices of other processes, is not known here and is let pass.
    """
    if isinstance(number, jax.Array) and not _is_known(number):
        return
    words = f" and at least {least:g}" if least > -math.inf else ""
    words += f" and at most {most:g}" if most < math.inf else ""
    value = np.asarray(number)
    real = np.issubdtype(value.dtype, np.number) and np.isrealobj(value)
    if not (real and np.all(np.isfinite(value) & (value >= least) & (value <= most))):
        raise ValueError(f"{name}={number!r}: must be finite{words}")


def _is_known(array):
    return not isinstance(array, jax.core.Tracer) and array.is_fully_addressable
