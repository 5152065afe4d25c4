"""What every method of the family is: a pair of pure functions, and what they hand over."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import inputs, trees
from samscale.sharpness.promotion import standard

Params = Any


class State(NamedTuple):
    """What a gradient carries from step to step."""

    count: jax.Array  # () int32, steps behind us
    perturbation: Any
    memo: Any  # what a full step left for the cheap ones after it


class Info(NamedTuple):
    """What a step reports but does not carry over. Under ``jit``, what goes unused is free."""

    out: Any  # of the perturbed pass
    clean_grads: Params  # at w
    ascent: Params  # e, the displacement of the second pass
    extra: Any  # dict: what the optimizer of a method asks for, as extra arguments of its update
    compared: Any = False  # () bool, whether ``out`` of w and that of w + e saw the same examples


class Gradient(NamedTuple):
    """A pair of pure functions.

    ``init(params) -> state``
    ``value_and_grad(params, state, *args, known=None, opt_state=None, group=0)
    -> ((out, grads), state, info)``

    ``known``: ``(out, grads)`` at ``params``, where the caller has them already. ``opt_state``: of
    the optimizer that will take the gradient, for methods that look into it. ``group``: which part
    of the batch this is, for methods that draw random numbers.
    """

    init: Callable
    value_and_grad: Callable


def checked(init, value_and_grad) -> Gradient:
    """The ``Gradient`` of two functions that are given arrays, from whoever calls it.

    Its own functions raise ``ValueError``, naming the path, for parameters that are no arrays of
    floating-point numbers, and for a gradient of another structure or shape than theirs.
    """

    @standard
    def init_of_arrays(params):
        return init(inputs.parameters(params))

    @standard
    def of_arrays(params, state, *args, known=None, opt_state=None, group=0):
        params = inputs.parameters(params)
        known = None if known is None else inputs.gradients(known, params)
        return value_and_grad(params, state, *args, known=known, opt_state=opt_state, group=group)

    return Gradient(init_of_arrays, of_arrays)


def plain(value_and_grad_fn) -> Gradient:
    r"""$\nabla L(w)$: one gradient evaluation, no ascent."""
    value_and_grad_fn = inputs.gradient_of(value_and_grad_fn)

    def init(params):
        del params
        return State(jnp.zeros((), jnp.int32), optax.EmptyState(), None)

    def value_and_grad(params, state, *args, known=None, opt_state=None, group=0):
        del opt_state, group
        out, grads = known or value_and_grad_fn(params, *args)
        state = state._replace(count=state.count + 1)
        return (out, grads), state, Info(out, grads, trees.zeros(params), {}, jnp.array(True))

    return checked(init, value_and_grad)


def key_of(key, count, group):
    """The key of a group of the batch in a step."""
    return jax.random.fold_in(jax.random.fold_in(key, count), group)
