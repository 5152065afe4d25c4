r"""A sharpness-aware gradient = perturbation x combination, around any ``value_and_grad``.

Conventions, the same for every method (papers and code bases differ here):

- what is reported (loss, metrics, batch statistics) belongs to the *clean* pass, at $w$;
- both passes see the same arguments: the same batch and the same dropout key;
- one norm over all leaves of one run, computed in at least float32;
- a zero gradient gives a zero ascent, while NaN and infinity pass through;
- weight decay is the optimizer's business and never bends the ascent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Params = Any


class State(NamedTuple):
    """What a gradient carries from step to step."""

    perturbation: Any


class Info(NamedTuple):
    """What a step reports but does not carry over. Under ``jit``, what goes unused is free."""

    out: Any  # of the perturbed pass
    clean_grads: Params  # at w
    ascent: Params  # e, the displacement of the second pass


class Gradient(NamedTuple):
    """A pair of pure functions.

    ``init(params) -> state``
    ``value_and_grad(params, state, *args) -> ((out, grads), state, info)``
    """

    init: Callable
    value_and_grad: Callable


def plain(value_and_grad_fn) -> Gradient:
    r"""$\nabla L(w)$: one gradient evaluation, no ascent, no state."""

    def value_and_grad(params, state, *args):
        out, grads = value_and_grad_fn(params, *args)
        return (out, grads), state, Info(out, grads, jax.tree.map(jnp.zeros_like, params))

    return Gradient(lambda params: State(optax.EmptyState()), value_and_grad)


def at_perturbed(clean_grads, perturbed_grads):
    r"""SAM's combination: the gradient at $w + e$ alone."""
    del clean_grads
    return perturbed_grads


def sharpness_aware(value_and_grad_fn, perturbation, combine=at_perturbed) -> Gradient:
    r"""``combine``$(\nabla L(w), \nabla L(w + e))$, where $e$ = ``perturbation``$(\nabla L(w))$.

    Args:
      value_and_grad_fn: ``(params, *args) -> (out, grads)``, as ``jax.value_and_grad`` returns it;
        ``out`` is never looked into.
      perturbation: an optax transformation whose output is *added* to the parameters, so that
        ``optax.chain``, masks and schedules apply to it as to any other.
      combine: ``(clean_grads, perturbed_grads) -> grads``.

    Costs two gradient evaluations and one copy of the parameters.
    """
    perturbation = optax.with_extra_args_support(perturbation)

    def init(params):
        return State(perturbation.init(params))

    def value_and_grad(params, state, *args):
        out, clean = value_and_grad_fn(params, *args)
        ascent, inner = perturbation.update(clean, state.perturbation, params)
        perturbed_out, perturbed = value_and_grad_fn(_add(params, ascent), *args)
        info = Info(perturbed_out, clean, ascent)
        return (out, combine(clean, perturbed)), State(inner), info

    return Gradient(init, value_and_grad)


def grouped(gradient: Gradient, groups: int, *, weight=lambda out: 1.0, merge=None) -> Gradient:
    r"""m-sharpness: each of ``groups`` equal parts of the batch ascends alone (Foret et al., 2021).

    Every leaf of ``*args`` is split along its leading axis. The gradients are averaged with
    ``weight(out)`` (the number of valid examples, where a loss is masked); ``out`` and ``info.out``
    are ``merge``d along a new leading axis (default: their mean). One group after another, in
    the memory of one; the number of devices plays no part. State is averaged over the groups.
    """
    if groups == 1:
        return gradient
    merge = merge or (lambda outs: jax.tree.map(lambda x: x.mean(0), outs))

    def value_and_grad(params, state, *args):
        parts = jax.tree.map(lambda a: a.reshape(groups, -1, *a.shape[1:]), args)

        def body(total, part):
            (out, grads), new, info = gradient.value_and_grad(params, state, *part)
            share = weight(out)
            pieces = (grads, info.clean_grads, info.ascent)
            total = jax.tree.map(lambda t, x: t + share * x, total, (*pieces, jnp.ones(())))
            return total, (out, info.out, new)

        zeros = jax.tree.map(jnp.zeros_like, (params, params, params, jnp.zeros(())))
        (*sums, count), (outs, perturbed_outs, states) = jax.lax.scan(body, zeros, parts)
        grads, clean, ascent = jax.tree.map(lambda x: (x / count).astype(x.dtype), tuple(sums))
        info = Info(merge(perturbed_outs), clean, ascent)
        return (merge(outs), grads), jax.tree.map(_average, states), info

    return Gradient(gradient.init, value_and_grad)


def norm(tree):
    """The l2 norm over all leaves, in at least float32."""
    return jnp.sqrt(sum(jnp.vdot(x, x).real for x in map(_wide, jax.tree.leaves(tree))))


def _add(params, ascent):
    return jax.tree.map(lambda w, e: (_wide(w) + _wide(e)).astype(w.dtype), params, ascent)


def _average(x):  # counters agree between groups; a mean would make them floats
    return x.mean(0) if jnp.issubdtype(x.dtype, jnp.inexact) else x[0]


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
