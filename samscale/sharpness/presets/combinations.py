r"""Methods that differ in what becomes of the two gradients, and when the second is taken."""

import math

import jax
import jax.numpy as jnp

from samscale.sharpness import combine, trees
from samscale.sharpness import perturbations as p
from samscale.sharpness.checks import check
from samscale.sharpness.core import sharpness_aware
from samscale.sharpness.gradient import Gradient
from samscale.sharpness.groups import examples
from samscale.sharpness.presets.ascents import in_ball


def gsam(value_and_grad_fn, rho=0.05, *, alpha=0.4, ord=2, steps=1, **how) -> Gradient:
    r"""$g_s - \alpha g_\perp$, the part of g orthogonal to $g_s$: less surrogate gap. Cost 2.

    The authors let the radius follow the learning rate: give ``follow(...)`` as rho. alpha = 0 is
    SAM; theirs is 0.01 for ResNets and 0.4 to 1 for ViTs. Zhuang et al.: Surrogate Gap Minimization
    Improves Sharpness-Aware Training, ICLR 2022.
    """
    check("alpha", alpha, least=-math.inf)
    return in_ball(value_and_grad_fn, rho, combine=combine.gsam(alpha), ord=ord, steps=steps, **how)


def follow(shape, rho, rho_min=0.0, peak=1.0, end=0.0):
    r"""$\rho_{min} + (\rho - \rho_{min}) \frac{s(t) - s_{end}}{s_{peak} - s_{end}}$, as a schedule.

    GSAM's (Zhuang et al., 2022): s is the learning rate, or a multiple of it, between its largest
    value and its last. In a warmup the radius rises from rho_min; it stays at rho where s does.
    """
    if peak == end:
        return lambda count: rho
    share = lambda count: jnp.clip((shape(count) - end) / (peak - end), 0, 1)
    at = lambda count: lambda r: rho_min + (r - rho_min) * share(count)
    return lambda count: jax.tree.map(at(count), rho)


def wsam(
    value_and_grad_fn, rho=0.05, *, gamma=0.9, clip_norm=0.0, ord=2, steps=1, **how
) -> Gradient:
    r"""The base optimizer takes g; $\frac{\gamma}{1 - \gamma}(g_s - g)$ joins its update. Cost 2.

    The latter, never averaged by momentum nor divided by Adam, is ``info.extra["sharpness"]``:
    extra argument of ``add_sharpness``, which stands before the learning rate. gamma = 1/2 is SAM
    for sgd without momentum, 0 is no SAM. ``clip_norm``: both are scaled so that the l2 norm of
    their sum is at most that; 0: they are not. Yue et al.: Sharpness-Aware Minimization Revisited:
    Weighted Sharpness as a Regularization Term, KDD 2023, decoupled.
    """
    term = combine.sharpness(gamma)
    check("clip_norm", clip_norm)

    def factor(g, gs):
        length = trees.norm(trees.add(g, term(g, gs)))
        return jnp.minimum(1.0, trees.ratio(clip_norm, length)) if clip_norm else 1.0

    own = lambda g, gs: trees.scale(factor(g, gs), g)
    extra = lambda g, gs: {"sharpness": trees.scale(factor(g, gs), term(g, gs))}
    return in_ball(value_and_grad_fn, rho, combine=own, extra=extra, ord=ord, steps=steps, **how)


def wsam_coupled(value_and_grad_fn, rho=0.05, *, gamma=0.9, ord=2, steps=1, **how) -> Gradient:
    r"""$g + \frac{\gamma}{1 - \gamma}(g_s - g)$ as one gradient; gamma = 1/2 is SAM. Cost 2.

    Yue et al., KDD 2023, coupled.
    """
    return in_ball(value_and_grad_fn, rho, combine=combine.wsam(gamma), ord=ord, steps=steps, **how)


def looksam(value_and_grad_fn, rho=0.1, *, alpha=0.7, every=5, ord=2, steps=1, **how) -> Gradient:
    r"""$g_s$ every k-th step, $g + \alpha \|g\| \hat v$ in between. Cost 1 + 1/k.

    v is the part of the last $g_s$ orthogonal to the g beside it, over all leaves; k is ``every``.
    One more copy of the weights. Liu et al., CVPR 2022.
    """
    reuse = combine.looksam(alpha)
    return in_ball(value_and_grad_fn, rho, every=every, reuse=reuse, ord=ord, steps=steps, **how)


def look_layer_sam(value_and_grad_fn, rho=0.1, *, alpha=0.7, every=5, **how) -> Gradient:
    r"""``looksam`` with $e_l = \rho\, \|w_l\|\, \hat g_l$. Cost 1 + 1/k. Liu et al., CVPR 2022."""
    reuse = combine.looksam(alpha)
    return sharpness_aware(value_and_grad_fn, p.per_layer(rho), every=every, reuse=reuse, **how)


def periodic_sam(value_and_grad_fn, rho=0.5, *, every=10, ord=2, steps=1, **how) -> Gradient:
    r"""$g_s$ every k-th step, g in between. Cost 1 + 1/k.

    As in Composer (MosaicML, 2022), where the radius grows with the interval: 0.5 at k = 10.
    """
    return in_ball(value_and_grad_fn, rho, every=every, ord=ord, steps=steps, **how)


def step_size_sam(value_and_grad_fn, rho=0.05, *, ord=2, steps=1, **how) -> Gradient:
    r"""$\hat g\, \|g_s\|$: SAM's length without its direction, a control. Cost 2.

    Andriushchenko, Flammarion, ICML 2022.
    """
    return in_ball(
        value_and_grad_fn, rho, combine=combine.step_size_only, ord=ord, steps=steps, **how
    )


def esam(
    value_and_grad_fn,
    rho=0.05,
    *,
    beta=0.5,
    gamma=0.5,
    losses,
    losses_of=None,
    take=None,
    ord=2,
    key,
    **how,
) -> Gradient:
    r"""$g_s$ from the share $\gamma$ of examples whose loss rose most. Cost 1 + 1/3 + gamma.

    Each leaf climbs with probability ``beta``, by 1 / beta as far (stochastic weight perturbation);
    ``round(gamma n)`` examples are kept (sharpness-sensitive data selection): a static number, so
    that the second pass really is smaller. The third is a forward pass; for gamma = 1 the cost
    is 2. beta saves nothing here; where no leaf climbs, the choice of examples is rounding's.

    ``losses(params, *args) -> (n,)``; ``losses_of(out)``: the same of the clean pass, where it is
    known; ``take(args, rows)``: those examples; default: of every array, which must all have them
    along their leading axis (``ValueError``). Inside ``shard_map`` only ``per_device``
    (``ValueError``): a device sees but its own examples. Du et al.: Efficient Sharpness-aware
    Minimization, ICLR 2022.
    """
    if how.get("axis_name") and gamma < 1 and not how.get("per_device"):
        raise ValueError(
            f"axis_name={how['axis_name']!r}: must be None, or per_device=True, or gamma=1: a "
            "device would choose among its own examples; shard the batch under jit instead"
        )
    check("beta", beta, above=0, most=1)
    check("gamma", gamma, above=0, most=1)

    def hardest(args, out, above, params):
        before = losses_of(out) if losses_of else losses(params, *args)
        increase = losses(above, *args) - before
        _, rows = jax.lax.top_k(increase, max(1, round(gamma * increase.size)))
        if take is None:
            examples(args, "take=")
        return (take or _rows)(args, jnp.sort(rows))

    return in_ball(
        value_and_grad_fn,
        rho,
        ord=ord,
        after=() if beta == 1 else (p.keep_leaves(beta),),
        descent_args=None if gamma == 1 else hardest,
        key=key,
        **how,
    )


def _rows(args, rows):
    return jax.tree.map(lambda a: a[rows], args)
