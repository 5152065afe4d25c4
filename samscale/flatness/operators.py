r"""Curvature of a loss as linear maps of $R^P$, known by their products with vectors only.

An ``Operator`` is a pytree: parameters and data are its leaves, so that a compiled solver takes
them as arguments and nothing is folded into the program. Parameters are laid out as one vector in
the order of ``jax.flatten_util.ravel_pytree``. A loss is any ``losses(params, batch) -> (n,)``, one
number an example; a batch is any pytree of arrays with examples along the leading axis. The loss of
a data set is the mean over all its examples. Products are taken at the highest precision that the
device has for matrix products, in the dtype of the parameters.
"""

import dataclasses
from collections.abc import Callable
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from samscale import kernels
from samscale.flatness.examples import check, check_batch, count, pure, summed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operator:
    """A symmetric linear map ``v -> A v`` of vectors (size,). Sums, multiples and powers of them.

    ``A + B``, ``A - B``, ``2.0 * A`` and ``A**3`` are operators too; each product of theirs costs
    those of their parts. Raises ``ValueError`` for operators of different sizes, powers that are no
    whole number from 0 on, and factors that are no number (``scaled`` takes vectors); and for other
    dtypes than float32 and float64, for curvature cancels.
    """

    apply: Partial  # v -> A v; its arguments are arrays, and leaves of this pytree
    size: int = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if jnp.dtype(self.dtype) not in (jnp.float32, jnp.float64):
            raise ValueError(f"params: must be float32 or float64 together, not {self.dtype}")

    def __call__(self, v):
        with jax.default_matmul_precision("highest"):
            return self.apply(v)

    def __add__(self, other: "Operator") -> "Operator":
        if not isinstance(other, Operator):
            return NotImplemented
        if other.size != self.size:
            raise ValueError(f"A + B: must be of one size, not {self.size} and {other.size}")
        return dataclasses.replace(self, apply=Partial(_sum, self, other))

    def __sub__(self, other: "Operator") -> "Operator":
        return self + (-1.0) * other

    def __rmul__(self, factor) -> "Operator":
        if isinstance(factor, Operator):
            return NotImplemented
        if jnp.shape(factor):
            raise ValueError(f"c * A: c must be a number, not of shape {jnp.shape(factor)}")
        return dataclasses.replace(self, apply=Partial(_times, factor, self))

    __mul__ = __rmul__

    def __pow__(self, k: int) -> "Operator":
        if not isinstance(k, Integral) or k < 0:
            raise ValueError(f"A**{k}: the power must be a whole number, 0 or more")
        return dataclasses.replace(self, apply=Partial(_power, k, self))


def dense(matrix) -> Operator:
    """The operator of a symmetric matrix (size, size)."""
    matrix = jnp.asarray(matrix)
    return Operator(Partial(jnp.matmul, matrix), len(matrix), matrix.dtype)


def matrix(op: Operator):
    """(size, size): the products with all unit vectors. For small operators, and tests."""
    return jax.lax.map(op, jnp.eye(op.size, dtype=op.dtype))


def scaled(op: Operator, d) -> Operator:
    r"""$D A D$ for a vector d (size,): curvature in coordinates $u = D^{-1} w$.

    ``d = |w|`` gives the scale-invariant curvature of ASAM (Kwon et al., 2021, arXiv:2102.11600);
    a mask of zeros and ones gives A restricted to what is kept, as for a pruned network.
    """
    return dataclasses.replace(op, apply=Partial(_scaled, jnp.asarray(d, op.dtype), op))


def hessian(losses, params, data, batch_size: int | None = None) -> Operator:
    r"""$\nabla^2 L(w)$ of the mean loss. A product costs about two gradients of the data set.

    ``batch_size``: how many examples at a time; None, all at once, which lets the passes at ``w``
    be computed once for all products. Sums are exact: no example is left out or counted twice.
    Raises ``ValueError`` unless losses are (n,), and for a batch size below 1, as all operators do.
    """
    check("losses", losses, params, data)
    return _mean(_hessian_product, (pure(losses), params), params, data, batch_size)


def gauss_newton(outputs, criterion, params, data, batch_size: int | None = None) -> Operator:
    r"""$\frac1n \sum_i J_i^\top S_i J_i$: the Hessian without the curvature of the network itself.

    ``outputs(params, batch)``: (n, C), with Jacobians J; ``criterion(outputs, batch)``: (n,), with
    Hessians S in the outputs. Where S is positive semi-definite, so is this. For cross entropy and
    squared loss it is the Fisher information (up to the variance of the latter's noise).
    A product costs about a forward and a backward pass. Source: Schraudolph, 2002,
    doi:10.1162/08997660260028683.
    """
    z = check("outputs", outputs, params, data, ndim=2)
    check("criterion", criterion, z, data)
    at = (pure(outputs), pure(criterion), params)
    return _mean(_gauss_newton_product, at, params, data, batch_size)


def fisher(losses, params, data, batch_size: int | None = None) -> Operator:
    r"""The empirical Fisher matrix $\frac1n \sum_i g_i g_i^\top$, at the labels as they are.

    The second moment of the gradients of single examples: no approximation of the Hessian away from
    interpolation (Kunstner et al., 2019, arXiv:1905.12558). A product costs two passes.
    """
    check("losses", losses, params, data)
    return _mean(_fisher_product, (pure(losses), params), params, data, batch_size)


def moments(losses, params, data, coefficients, group: int = 1, chunk: int = 0) -> Operator:
    r"""$\frac1m \sum_B \sum_k c_k H_B^k$, of the Hessians of groups B of ``group`` examples.

    ``coefficients``: $(c_0, c_1, ..., c_K)$, K at least 1; ``(0, 0, 1)`` is $M_2 = E[H_i^2]$.
    Groups are consecutive examples; ``chunk`` groups are taken at a time, each with a vector of
    R^P of its own (0: as many as 64 MiB of float32 hold). A product costs K products with the
    Hessian and the memory traffic of K - 1 vectors for each group. Raises ``ValueError`` where
    ``group`` does not divide the number of examples, or K is 0. Source: the moments of Wu, Ma and
    E, 2018 (NeurIPS).
    """
    check("losses", losses, params, data)
    n = count(data)
    if len(coefficients) < 2:
        raise ValueError(f"coefficients={coefficients}: must be (c_0, c_1, ...), of powers to 1 on")
    if group < 1 or n % group:
        raise ValueError(f"group={group}: must divide the {n} examples")
    data = jax.tree.map(lambda a: a.reshape(n // group, group, *a.shape[1:]), data)
    at = (pure(losses), tuple(coefficients), params)
    chunk = chunk or max(1, 2**24 // jax.eval_shape(_flat, params).size)
    return _mean(_moments_product, at, params, data, chunk)


def of_layers(params) -> dict[str, Any]:
    """Masks (size,) of the layers of ``params`` by name, to restrict an operator to a layer.

    A layer is what one module holds, as kernel and bias: all leaves of a path but for its last
    part, which is the layer's name; a leaf that no module holds is a layer of its own.
    """
    layers = [kernels.layer(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    masks = {}
    for layer in dict.fromkeys(layers):
        own = lambda path, w, name=layer: jnp.full_like(w, float(kernels.layer(path) == name))
        mask = jax.tree_util.tree_map_with_path(own, params)
        masks["/".join(layer)] = ravel_pytree(mask)[0]
    return masks


def _sum(a, b, v):
    return a(v) + b(v)


def _times(factor, a, v):
    return factor * a(v)


def _scaled(d, a, v):
    return d * a(d * v)


def _power(k, a, v):
    return jax.lax.fori_loop(0, k, lambda _, v: a(v), v)


def _mean(product: Callable, at, params, data, batch_size) -> Operator:
    """``product(at, batch, v)``: a sum over a batch, for v in the space of ``params``."""
    check_batch(batch_size)
    flat = jax.eval_shape(_flat, params)
    return Operator(Partial(_Mean(product, batch_size), at, data), flat.size, flat.dtype)


@dataclasses.dataclass(frozen=True)  # equal where its parts are, so that programs are shared
class _Mean:
    product: Callable
    batch_size: int | None

    def __call__(self, at, data, v):
        total = summed(lambda batch: self.product(at, batch, v), data, self.batch_size)
        return total / count(data)


def _hessian_product(at, batch, v):
    losses, params = at
    total = lambda params: losses(params, batch).sum()
    return _flat(jax.jvp(jax.grad(total), (params,), (_like(params, v),))[1])


def _gauss_newton_product(at, batch, v):
    outputs, criterion, params = at
    z, forward = jax.linearize(lambda params: outputs(params, batch), params)
    slope = jax.grad(lambda z: criterion(z, batch).sum())
    bent = jax.jvp(slope, (z,), (forward(_like(params, v)),))[1]
    return _flat(jax.linear_transpose(forward, params)(bent)[0])


def _fisher_product(at, batch, v):
    losses, params = at
    _, forward = jax.linearize(lambda params: losses(params, batch), params)
    along = forward(_like(params, v))
    return _flat(jax.linear_transpose(forward, params)(along)[0])


def _moments_product(at, groups, v):
    """By Horner's rule: a product for each group but the last, which one reverse pass sums."""
    losses, (constant, *coefficients), params = at
    v_tree = _like(params, v)
    mean = lambda params, group: losses(params, group).mean()
    times = lambda c, tree: jax.tree.map(lambda x: c * x, tree)

    def product(group, u, c):
        bent = jax.jvp(lambda p: jax.grad(mean)(p, group), (params,), (u,))[1]
        return jax.tree.map(jnp.add, bent, times(c, v_tree))

    u, axis = times(coefficients[-1], v_tree), None
    for c in coefficients[-2::-1]:
        u, axis = jax.vmap(product, (0, axis, None))(groups, u, c), 0

    def along(params):
        slope = lambda group, u: jax.jvp(lambda p: mean(p, group), (params,), (u,))[1]
        return jax.vmap(slope, (0, axis))(groups, u).sum()

    return _flat(jax.grad(along)(params)) + constant * len(jax.tree.leaves(groups)[0]) * v


def _flat(tree):
    return ravel_pytree(tree)[0]


def _like(params, v):
    return ravel_pytree(params)[1](v)
