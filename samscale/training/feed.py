"""Where batches come from: arrays on the device, or windows streamed from the host.

Both hand the same compiled loop the same batches in the same order, to the bit.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WINDOW_BYTES = 2**26  # of a streamed window: enough to hide its cost, small on any device


class Window(NamedTuple):
    """Arguments of ``Program.advance``: batch i is ``examples[order[first + i]]``, i < ``size``."""

    examples: Any
    order: Any
    first: int
    size: int


def resident(examples):
    """``feed(order, first) -> Window``, from a copy on the device; order: (..., steps, batch)."""
    on_device = jax.device_put(dict(examples))

    def feed(order, first):
        return Window(on_device, order, first, order.shape[-2] - first)

    return feed


def streamed(examples, batch_size):
    """The same from the host, a window at a time."""
    arrays = {name: np.asarray(a) for name, a in examples.items()}
    longest = _window_length(arrays, batch_size)

    def feed(order, first):
        length = min(longest, len(order))
        wanted = np.asarray(order[first : first + length])
        size = len(wanted)
        # windows of one shape are one program: the last one repeats a row that no step looks at
        rows = np.concatenate([wanted, np.repeat(wanted[-1:], length - size, axis=0)])
        window = jax.device_put({name: a[rows.ravel()] for name, a in arrays.items()})
        return Window(window, jnp.arange(rows.size).reshape(rows.shape), 0, size)

    return feed


def shapes(examples, order, cache):
    """Examples and order of a window, abstract, from the abstract order of a whole epoch.

    ``cache``: whether the examples are resident.
    """
    arrays = {name: np.asarray(a) for name, a in examples.items()}
    steps, batch_size = order.shape
    lengths = {name: len(a) for name, a in arrays.items()}
    if not cache:
        steps = min(steps, _window_length(arrays, batch_size))
        lengths = dict.fromkeys(arrays, steps * batch_size)
    window = {
        name: jax.ShapeDtypeStruct((lengths[name], *a.shape[1:]), a.dtype)
        for name, a in arrays.items()
    }
    return window, jax.ShapeDtypeStruct((steps, batch_size), order.dtype)


def evaluation_batches(examples, batch_size, num_batches, cache):
    """A list of stacks (k, batch_size, ...) that together hold every example exactly once.

    The last batch is filled with copies of the first example at weight zero. ``num_batches`` keeps
    the first so many (-1: all). One stack on the device, or several on the host.
    """
    arrays = {name: np.asarray(a) for name, a in examples.items()}
    n = len(next(iter(arrays.values())))
    if n == 0:
        return []
    total = -(-n // batch_size)
    rows = np.arange(total * batch_size)
    arrays["weight"] = np.asarray(arrays.get("weight", np.ones(n, np.float32)))
    padded = {name: a[np.where(rows < n, rows, 0)] for name, a in arrays.items()}
    padded["weight"] = np.where(rows < n, padded["weight"], 0).astype(np.float32)
    kept = total if num_batches == -1 else min(num_batches, total)
    stacked = {
        name: a.reshape(total, batch_size, *a.shape[1:])[:kept] for name, a in padded.items()
    }
    if cache:
        return [jax.device_put(stacked)]
    length = _window_length(arrays, batch_size)
    return [{k: a[i : i + length] for k, a in stacked.items()} for i in range(0, kept, length)]


def _window_length(arrays, batch_size):
    one = sum(a[:1].nbytes for a in arrays.values()) * batch_size
    return max(1, WINDOW_BYTES // max(one, 1))
