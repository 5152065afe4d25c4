r"""What is summed over the examples of a data set: shapes, batches, and how many memory holds.

A batch is any pytree of arrays with examples along the leading axis.
"""

import math

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

BUDGET = 2**28  # bytes of the values that a pass keeps of the examples it takes at a time
LAWS = {1: "(n,), one number an example", 2: "(n, C), a row an example"}


def pure(f) -> Partial:
    """A function as a pytree, so that arrays it holds (``Partial(f, stats)``) are arguments too."""
    return f if isinstance(f, Partial) else Partial(f)


def count(data) -> int:
    """The number of examples. Raises ``ValueError`` where arrays disagree, or there are none."""
    lengths = {len(a) for a in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"data: arrays must have one length, and examples, not {sorted(lengths)}")
    return lengths.pop()


def check(name: str, f, *args, ndim: int = 1):
    """What ``f(*args)`` is like, for the data set ``args[-1]``; nothing is computed.

    Raises ``ValueError`` unless it has a number an example (a row, where ``ndim`` is 2): the sum of
    a loss that is a mean already would be n times too small.
    """
    n = count(args[-1])
    found = jax.eval_shape(_called, pure(f), *args)
    shape = getattr(found, "shape", type(found).__name__)
    if not isinstance(shape, tuple) or len(shape) != ndim or shape[0] != n:
        raise ValueError(f"{name}: must give {LAWS[ndim]}, not {shape}")
    return found


def check_batch(batch_size: int | None) -> None:
    """Raises ``ValueError`` for a batch size below 1."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1, or None: all at once")


def summed(f, data, batch_size: int | None):
    """The sum of ``f(batch)`` over all of ``data``, ``batch_size`` examples at a time.

    The last batch holds what remains, so nothing is padded. Raises ``ValueError`` for a batch size
    below 1.
    """
    check_batch(batch_size)
    n = count(data)
    if batch_size is None or batch_size >= n:
        return f(data)
    take = lambda i: jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, i * batch_size, batch_size), data
    )
    add = lambda i, total: jax.tree.map(jnp.add, total, f(take(i)))
    like = jax.eval_shape(f, take(0))
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    total = jax.lax.fori_loop(0, n // batch_size, add, total)
    if rest := n % batch_size:
        total = jax.tree.map(jnp.add, total, f(jax.tree.map(lambda a: a[-rest:], data)))
    return total


def mapped(f, data, batch_size: int):
    """``f(batch)``, a row an example, of all of ``data``; batches as of ``summed``."""
    whole = count(data) - count(data) % batch_size
    cut = lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:])
    found = jax.lax.map(f, jax.tree.map(cut, data))
    found = found.reshape(whole, *found.shape[2:])
    if whole == count(data):
        return found
    return jnp.concatenate([found, f(jax.tree.map(lambda a: a[whole:], data))])


def passes(outputs, params, data, batch_size: int | None):
    r"""$v \mapsto J v$ (n, C) and $z \mapsto J^\top z$ of ``outputs`` at ``params``, like these.

    All at once (None), what both share is computed once; else ``batch_size`` examples at a time.
    """
    at = lambda batch: lambda params: outputs(params, batch)
    if batch_size is None or batch_size >= count(data):
        _, forward = jax.linearize(at(data), params)
        return forward, lambda z: jax.linear_transpose(forward, params)(z)[0]

    def forward(v):
        return mapped(lambda batch: jax.jvp(at(batch), (params,), (v,))[1], data, batch_size)

    def back(z):
        one = lambda part: jax.vjp(at(part[0]), params)[1](part[1])[0]
        return summed(one, (data, z), batch_size)

    return forward, back


def footprint(f, params, data) -> int:
    """Bytes that an example adds to the intermediate values of ``f(params, batch)``, all counted.

    More than a forward pass holds, for compilers fuse; near what a Hessian product does, which
    keeps values, tangents and slopes. Two traces, nothing is computed.
    """
    few = lambda n: jax.tree.map(lambda a: jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype), data)
    sizes = [_bytes(jax.make_jaxpr(_called)(pure(f), params, few(n)).jaxpr) for n in (2, 3)]
    return max(sizes[1] - sizes[0], 1)


def at_a_time(f, params, data, chunk: int = 0) -> int | None:
    """How many examples a pass takes: ``chunk``, or as many as ``BUDGET`` holds; None: all."""
    chunk = chunk or max(1, BUDGET // footprint(f, params, data))
    return None if chunk >= count(data) else chunk


def _called(f, *args):
    return f(*args)


def _bytes(jaxpr) -> int:
    """Of what all equations give; of those that hold a program, what happens inside."""
    total = 0
    for equation in jaxpr.eqns:
        inside = [p for p in map(_program, jax.tree.leaves(equation.params)) if p is not None]
        total += equation.params.get("length", 1) * sum(map(_bytes, inside))
        for value in () if inside else equation.outvars:
            total += math.prod(value.aval.shape) * value.aval.dtype.itemsize
    return total


def _program(parameter):
    """The jaxpr that a parameter of an equation is or closes over, if any."""
    parameter = getattr(parameter, "jaxpr", parameter)
    return parameter if hasattr(parameter, "eqns") else None
