r"""SASSHA (Shin et al., ICML 2025; arXiv:2502.18153): SAM with a diagonal Hessian at w + e.

A gradient and an optimizer that belong together: the gradient hands over the curvature.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import devices, inputs, trees
from samscale.sharpness.core import uphill
from samscale.sharpness.draws import drawn, signs
from samscale.sharpness.gradient import Gradient, Info, State, checked, key_of
from samscale.sharpness.perturbations import to_ball
from samscale.sharpness.promotion import standard


def sassha(value_and_grad_fn, rho=0.2, *, every=10, key, axis_name=None) -> Gradient:
    r"""$\nabla L(w + e)$ as SAM's, and every ``every`` steps $z \odot H z$ at w + e, z = +-1.

    One Hessian-vector product with random signs (Hutchinson) estimates the diagonal. Cost 2, and
    in every ``every``-th step about two more for the product. The update of the optimizer
    (``scale_by_sassha`` with the same ``every``) takes ``**info.extra``. ``axis_name``: as for
    ``sharpness_aware``; ascent and curvature are those of the whole batch. Shin et al., ICML 2025.
    """
    if every < 1:
        raise ValueError(f"every={every}: must be at least 1")
    ball, (varying, mean) = to_ball(rho), devices.over(axis_name)
    value_and_grad_fn = inputs.gradient_of(value_and_grad_fn)

    def init(params):
        return State(jnp.zeros((), jnp.int32), ball.init(params), None)

    def value_and_grad(params, state, *args, known=None, opt_state=None, group=0):
        del opt_state
        params = varying(inputs.real_parameters(params, "sassha"))
        out, clean = known or value_and_grad_fn(params, *args)
        clean = mean(clean)
        e, inner = ball.update(uphill(clean, params), state.perturbation, params, count=state.count)
        above = trees.add(params, e)

        def curved():
            z = varying(drawn(signs, key_of(key, state.count, group), params))
            flipped = lambda w: value_and_grad_fn(w, *args)[::-1]  # out may hold anything
            grads, hz, perturbed_out = jax.jvp(flipped, (above,), (z,), has_aux=True)
            return perturbed_out, grads, jax.tree.map(lambda h, z: h * z.astype(h.dtype), hz, z)

        def flat():
            perturbed_out, grads = value_and_grad_fn(above, *args)
            return perturbed_out, grads, trees.zeros(grads)

        every_kth = state.count % every == 0
        found = jax.lax.cond(every_kth, lambda: varying(curved()), lambda: varying(flat()))
        perturbed_out, grads, curvature = found
        grads, curvature = mean(grads), mean(curvature)
        info = Info(perturbed_out, clean, e, {"curvature": curvature}, jnp.array(True))
        return (out, grads), State(state.count + 1, inner, None), info

    return checked(init, value_and_grad)


class SasshaState(NamedTuple):
    count: jax.Array
    momentum: Any
    curvature: Any
    correction: jax.Array


def scale_by_sassha(beta1=0.9, beta2=0.999, epsilon=1e-4, every=10):
    r"""$\hat m / (\sqrt{D / c} + \epsilon)$, $\hat m = m / (1 - \beta_1^t)$, m a mean of gradients.

    In steps that bring a ``curvature`` h, $D \leftarrow \beta_2 D + (1 - \beta_2) |h|$ and
    $c = 1 - \beta_2^t$. As in the official code, t counts steps there too, not the terms of D.
    """

    def init(params):
        start = jnp.zeros((), jnp.int32)
        return SasshaState(start, trees.zeros(params), trees.zeros(params), jnp.ones(()))

    @standard
    def update(updates, state, params=None, *, curvature, **extra):
        del params, extra
        t = state.count + 1
        fresh = state.count % every == 0
        m = trees.add(trees.scale(beta1, state.momentum), updates, 1 - beta1)

        def blend(d, h):
            blended = beta2 * d + (1 - beta2) * jnp.abs(h)
            return jnp.where(fresh, blended, d).astype(d.dtype)

        d = jax.tree.map(blend, state.curvature, curvature)
        c = jnp.where(fresh, 1 - beta2**t, state.correction)
        rate = 1 / (1 - beta1**t)

        def direction(m, d, u):
            return (rate * m / (jnp.sqrt(d / c) + epsilon)).astype(u.dtype)

        return jax.tree.map(direction, m, d, updates), SasshaState(t, m, d, c)

    return optax.GradientTransformationExtraArgs(init, update)
