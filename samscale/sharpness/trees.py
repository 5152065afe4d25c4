r"""Arithmetic on pytrees: sums in at least float32, results in the leaves' own dtypes.

Leaves are arrays of JAX or NumPy, or numbers. Sums over a tree without leaves are zero.
"""

import jax
import jax.numpy as jnp

from samscale.sharpness.promotion import standard


@standard
def wide(x):
    """In float32, or in what is wider."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@standard
def norm(tree):
    r"""The l2 norm over all leaves, in at least float32, wherever it is a normal number itself.

    Its derivative at zero is zero.
    """
    leaves = [wide(x) for x in jax.tree.leaves(tree)]
    total = _total(map(_square, leaves))
    return jax.lax.cond(_is_tame(total), lambda: jnp.sqrt(total), lambda: _careful_norm(leaves))


def _is_tame(total):
    """Whether squares that vanished could not have changed their sum, and none overflowed: then one
    pass over the leaves is enough."""
    return (total > 1e-20) & (total < 1e30)


def _careful_norm(leaves):
    """Entries are divided by a power of two near the largest first, which rounds nothing: squares
    neither overflow nor vanish, be it the 1e-25 of a bfloat16 gradient or of an interpolating net.
    """
    scale = jax.lax.stop_gradient(_power_of_two(largest(leaves)))  # the norm does not depend on it
    total = _total(_square(x / scale) for x in leaves)
    return jnp.where(total == 0, 0, jnp.sqrt(jnp.where(total == 0, 1, total))) * scale


@standard
def norms(x, axes=None):
    """The l2 norms of one array over ``axes``, which are kept with length 1; as exact as ``norm``.

    Entries are divided by a power of two near the largest, as there.
    """
    x = wide(x)
    largest = jnp.max(jnp.abs(x), axes, keepdims=True, initial=0)
    scale = _power_of_two(largest)
    return jnp.sqrt(jnp.sum(jnp.square(x / scale), axes, keepdims=True)) * scale


@standard
def dot(a, b):
    """The inner product over all leaves, in at least float32."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return _total(jnp.vdot(wide(x), wide(y)).real for x, y in pairs)


@standard
def largest(tree):
    """The largest absolute value over all leaves."""
    peaks = [jnp.max(jnp.abs(wide(x)), initial=0) for x in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(peaks)) if peaks else jnp.zeros(())


@standard
def add(a, b, factor=1.0):
    """``a + factor b``, in the dtypes of ``a``; ``factor``: a number or a tree like ``b``."""
    return jax.tree.map(
        lambda x, y: (wide(x) + wide(y)).astype(jnp.result_type(x)), a, scale(factor, b)
    )


@standard
def scale(factor, tree):
    """``factor`` times ``tree``, in its dtypes; ``factor``: a number or a tree like it."""

    def times(f, x):
        if jnp.shape(f) and not _spreads_over(jnp.shape(f), jnp.shape(x)):
            raise ValueError(
                f"a factor (a radius, say) must be a number or shaped as what it multiplies, "
                f"{jnp.shape(x)}, not {jnp.shape(f)}"
            )
        return (f * wide(x)).astype(jnp.result_type(x))

    if jax.tree.structure(factor) == jax.tree.structure(tree):
        return jax.tree.map(times, factor, tree)
    if not jax.tree_util.all_leaves([factor]):
        raise ValueError(
            f"a tree of numbers (of radii, say) must be like that of the parameters, "
            f"{jax.tree.structure(tree)}, not {jax.tree.structure(factor)}"
        )
    return jax.tree.map(lambda x: times(factor, x), tree)


def size(tree):
    """The number of entries of all leaves."""
    return sum(jnp.size(x) for x in jax.tree.leaves(tree))


def zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


@standard
def ratio(a, b):
    """a / b, and 0 where b = 0: an interpolating network has zero gradient, not NaN."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def finite_or(new, old):
    """``new`` where it is finite, else ``old``."""
    return jnp.where(jnp.isfinite(new), new, old)


@standard
def along(a, b):
    r"""$\langle a, b \rangle / \|b\|^2$: how much of ``b`` there is in ``a``; 0 where b = 0."""
    total = _total(_square(wide(x)) for x in jax.tree.leaves(b))

    def careful():
        length = norm(b)
        unit = scale(ratio(1.0, length), jax.tree.map(wide, b))
        return ratio(dot(a, unit), length)

    return jax.lax.cond(_is_tame(total), lambda: dot(a, b) / total, careful)


def _spreads_over(shape, wanted):
    """Whether an array broadcasts to a shape, and does not change it."""
    ends = zip(shape[::-1], wanted[::-1], strict=False)
    return len(shape) <= len(wanted) and all(a in (1, b) for a, b in ends)


def _total(numbers):
    """Their sum; 0 of none."""
    numbers = list(numbers)
    return sum(numbers) if numbers else jnp.zeros(())


def _square(x):
    return jnp.vdot(x, x).real


def _power_of_two(x):
    """Within a factor 2 of x; 1 for zero, NaN and infinity."""
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(x) & (x > 0), x, 0.5))
    return jnp.ldexp(jnp.ones_like(x), jnp.clip(exponent, -120, 120))
