r"""For other people's loops: SAM as an optax optimizer, and terms beside an optimizer's own."""

import itertools

import jax
import optax

from samscale.sharpness.core import at_perturbed, sharpness_aware


def as_optax(optimizer, perturbation, combine=at_perturbed, **how):
    r"""``optimizer`` on sharpness-aware gradients, with the signature of
    ``optax.contrib.sam(..., opaque_mode=True)``.

    ``update(grads, state, params, grad_fn=...)``, where ``grad_fn(params, i)`` gives the i-th
    further gradient of this step (i = 0, 1, ..., ``steps`` - 1) and ``grads`` is the clean one,
    used as the first pass. ``perturbation``, ``combine``, ``**how``: as for ``sharpness_aware``.

    ``apply_if_finite`` belongs around ``optimizer``: around all of this it sees the clean gradient
    only. Inside ``optax.MultiSteps`` the ascent uses the accumulated gradient, and ``grad_fn`` must
    give that of the full batch (it is evaluated in every micro-step, since ``MultiSteps`` computes
    and discards); for an ascent in each micro-batch, put ``MultiSteps`` around the optimizer alone
    and hand it the gradients of ``sharpness_aware``.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def gradient(value_and_grad_fn):
        return sharpness_aware(value_and_grad_fn, perturbation, combine, **how)

    def init(params):
        return gradient(None).init(params), optimizer.init(params)

    def update(updates, state, params=None, *, grad_fn, **extra):
        if params is None:
            raise ValueError("params=None: the ascent starts from them")
        sharp, inner = state
        index = itertools.count()  # while tracing: the passes of a step are unrolled
        further = lambda w: (None, grad_fn(w, next(index)))
        (_, grads), sharp, info = gradient(further).value_and_grad(
            params, sharp, known=(None, updates), opt_state=inner
        )
        updates, inner = optimizer.update(grads, inner, params, **info.extra, **extra)
        return updates, (sharp, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def add_sharpness() -> optax.GradientTransformationExtraArgs:
    """Adds the extra argument ``sharpness`` to the updates: what ``wsam`` keeps out of the base."""

    def update(updates, state, params=None, *, sharpness, **extra):
        del params, extra
        return jax.tree.map(lambda u, s: u + s.astype(u.dtype), updates, sharpness), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
