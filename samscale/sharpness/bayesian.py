r"""bSAM (Moellenhoff and Khan: SAM as an Optimal Relaxation of Bayes, ICLR 2023).

A gradient and an optimizer that belong together: the gradient looks up the precision s, which the
optimizer keeps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import devices, inputs, trees
from samscale.sharpness.checks import check
from samscale.sharpness.draws import drawn
from samscale.sharpness.gradient import Gradient, Info, State, checked, key_of
from samscale.sharpness.perturbations import radius
from samscale.sharpness.promotion import standard


def bsam(value_and_grad_fn, rho=0.01, *, num_examples, key, axis_name=None) -> Gradient:
    r"""$\nabla L(w + e)$, $e = \rho\, g / s$, $g = \nabla L(w + n)$, $n \sim N(0, 1 / (N s))$.

    N: ``num_examples`` of the training set. Moellenhoff and Khan, ICLR 2023. Cost 2. Both
    start at w; what is reported belongs to the first, at w + n, since none is at w. ``opt_state``
    must be that of an optimizer with ``scale_by_bsam``, whose update takes ``**info.extra``.
    ``axis_name``: as for ``sharpness_aware``; noise and ascent are those of the whole batch.
    """
    check("num_examples", num_examples, least=1)
    varying, mean = devices.over(axis_name)
    value_and_grad_fn = inputs.gradient_of(value_and_grad_fn)

    def init(params):
        del params
        return State(jnp.zeros((), jnp.int32), optax.EmptyState(), None)

    def value_and_grad(params, state, *args, known=None, opt_state=None, group=0):
        del known  # at w, where this looks nowhere
        params = varying(inputs.real_parameters(params, "bsam"))
        s = optax.tree.get(opt_state, "precision")
        if s is None:
            raise ValueError("opt_state: must be that of an optimizer with scale_by_bsam")
        deviation = jax.tree.map(lambda s: jax.lax.rsqrt(num_examples * trees.wide(s)), s)
        noise = drawn(jax.random.normal, key_of(key, state.count, group), params)
        noise = trees.scale(deviation, noise)
        out, g = value_and_grad_fn(trees.add(params, noise), *args)
        g = mean(g)
        e = trees.scale(radius(rho, state.count), jax.tree.map(lambda g, s: g / s, g, s))
        perturbed_out, grads = value_and_grad_fn(trees.add(params, e), *args)
        grads = mean(grads)
        info = Info(perturbed_out, g, e, {"magnitude": jax.tree.map(jnp.abs, g)}, jnp.array(False))
        return (out, grads), state._replace(count=state.count + 1), info

    return checked(init, value_and_grad)


class BSAMState(NamedTuple):
    momentum: Any
    precision: Any


def scale_by_bsam(beta1=0.9, beta2=0.999, gamma=0.1, delta=0.0, initial_precision=1.0):
    r"""$m \leftarrow \beta_1 m + (1 - \beta_1) u$, direction m / s with the *old* s, then
    $s \leftarrow \beta_2 s + (1 - \beta_2) (\sqrt s\, |g| + \gamma + \delta)$.

    u is the gradient, with weight decay $\delta w$ added before; |g|, of the noisy clean one, is an
    extra argument, ``magnitude`` (its mean over groups). gamma: damping.
    """

    def init(params):
        full = jax.tree.map(lambda w: jnp.full_like(w, initial_precision), params)
        return BSAMState(trees.zeros(params), full)

    @standard
    def update(updates, state, params=None, *, magnitude, **extra):
        del params, extra
        m = trees.add(trees.scale(beta1, state.momentum), updates, 1 - beta1)
        divided = lambda u, m, s: (m / s).astype(u.dtype)
        direction = jax.tree.map(divided, updates, m, state.precision)

        def grow(s, g):
            grown = beta2 * s + (1 - beta2) * (jnp.sqrt(s) * g + gamma + delta)
            return grown.astype(s.dtype)

        precision = jax.tree.map(grow, state.precision, magnitude)
        return direction, BSAMState(m, precision)

    return optax.GradientTransformationExtraArgs(init, update)
