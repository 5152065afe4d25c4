r"""Methods that differ in where the second gradient is taken.

Each maps ``(value_and_grad_fn, rho)`` and its own choices to a ``Gradient``; ``**how`` goes to
``sharpness_aware``. g is the clean gradient, a hat stands for division by the l2 norm over all
leaves, and costs are gradient evaluations a step.
"""

import functools

import optax

from samscale.sharpness import averages, leaves, masks
from samscale.sharpness import perturbations as p
from samscale.sharpness.checks import check
from samscale.sharpness.core import sharpness_aware
from samscale.sharpness.gradient import Gradient
from samscale.sharpness.groups import grouped, split_leading


def in_ball(
    value_and_grad_fn, rho, *, ord=2, metric=None, before=(), after=(), steps=1, **how
) -> Gradient:
    """The steepest way up within a ball, through ``before`` and ``after``; several steps are
    projected back onto it."""
    perturbation = optax.chain(*before, p.to_ball(rho, ord, metric), *after)
    project = p.onto_ball(rho, ord, metric) if steps > 1 else None
    return sharpness_aware(value_and_grad_fn, perturbation, steps=steps, project=project, **how)


def sam(value_and_grad_fn, rho=0.05, *, ord=2, steps=1, **how) -> Gradient:
    r"""$\nabla L(w + \rho\, \hat g)$ with $g = \nabla L(w)$; other norms: ``to_ball``. Cost 2.

    Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization for Efficiently Improving
    Generalization, ICLR 2021. Other norms: Mueller et al., NeurIPS 2023.
    """
    return in_ball(value_and_grad_fn, rho, ord=ord, steps=steps, **how)


def usam(value_and_grad_fn, rho=0.05, **how) -> Gradient:
    r"""$\nabla L(w + \rho\, g)$: unnormalised SAM. Cost 2.

    The ascent scales with the loss: summed instead of averaged, it is another method.
    Andriushchenko, Flammarion: Towards Understanding Sharpness-Aware Minimization, ICML 2022.
    """
    return sharpness_aware(value_and_grad_fn, p.times(rho), **how)


def m_sam(
    value_and_grad_fn,
    rho=0.05,
    *,
    groups=8,
    split=split_leading,
    weight=lambda out: 1.0,
    merge=None,
    **how,
) -> Gradient:
    r"""$\frac1G \sum_b \nabla L_b(w + \rho\, \hat g_b)$ over G ``groups`` b of the batch. Cost 2,
    of gradients taken group by group, which small groups make slower than one of the batch.

    m is the size of a group. Foret et al., 2021, section 4.1; 8 groups as in Moellenhoff and Khan,
    2023. ``split``, ``weight``, ``merge``: see ``groups``.
    """
    one = sam(value_and_grad_fn, rho, **how)
    return grouped(one, groups, split=split, weight=weight, merge=merge)


def asam(value_and_grad_fn, rho=0.5, *, eta=0.01, where=None, ord=2, steps=1, **how) -> Gradient:
    r"""$e = \rho\, T^2 g / \|T g\|$, $T = |w| + \eta$ for kernels and 1 for other leaves. Cost 2.

    ``where(params)`` says which leaves are kernels; default: those called ``kernel``, ``weight`` or
    ``w`` (``ValueError`` where none is); the official code counts the scales of normalization among
    them. Kwon, Kim, Park, Choi: ASAM, ICML 2021; rho = 0.5 for CIFAR-10, 1 for CIFAR-100.
    """
    check("eta", eta)
    metric = functools.partial(leaves.absolute, eta=eta, where=where or leaves.kernels)
    return in_ball(value_and_grad_fn, rho, ord=ord, metric=metric, steps=steps, **how)


def asam_all(value_and_grad_fn, rho=2.0, *, ord=2, steps=1, **how) -> Gradient:
    r"""``asam`` with $T = |w|$ for every leaf: a weight that is zero stays in place. Cost 2.

    As in the PyTorch port by D. Samuel (2021), who found rho = 2 best on CIFAR-10. The loss at
    w + e is the same for rescaled layers of a ReLU network.
    """
    return in_ball(value_and_grad_fn, rho, ord=ord, metric=leaves.absolute, steps=steps, **how)


def layer_sam(value_and_grad_fn, rho=0.05, **how) -> Gradient:
    r"""$e_l = \rho\, \|w_l\|\, \hat g_l$ for each leaf l, normalised by itself. Cost 2.

    rho is a share of each leaf's own norm; some public ports divide by the norm of all of g
    besides, which makes the ascent depend on the scale of the loss. LayerSAM of Liu, Mai, Chen,
    Hsieh, You: Towards Efficient and Scalable Sharpness-Aware Minimization, CVPR 2022.
    """
    return sharpness_aware(value_and_grad_fn, p.per_layer(rho), **how)


def fisher_sam(value_and_grad_fn, rho=0.1, *, eta=1.0, **how) -> Gradient:
    r"""$e = \rho\, F^{-1} g / \sqrt{g^T F^{-1} g}$, $F = 1 + \eta g^2$ entry by entry. Cost 2.

    Kim, Li, Hospedales et al.: Fisher SAM, ICML 2022 (their gamma is rho here).
    """
    return sharpness_aware(value_and_grad_fn, p.to_fisher_ball(rho, eta), **how)


def random_sam(value_and_grad_fn, rho=0.05, *, mask=None, key, **how) -> Gradient:
    r"""$\nabla L(w + \rho\, \hat \xi)$, $\xi$ of random signs: the baseline without ascent. Cost 1.

    A normal direction has the same mean and covariance, and costs thirty times the random bits. No
    clean gradient is computed: what is reported belongs to the perturbed pass. ``mask``: where
    weights exist, in a pruned network; elsewhere they stay. Foret et al., 2021, compare with it.
    """
    noise = p.in_random_direction(rho, mask)
    return sharpness_aware(value_and_grad_fn, noise, needs_gradient=False, key=key, **how)


def momentum_sam(value_and_grad_fn, rho=0.3, *, momentum=None, **how) -> Gradient:
    r"""MSAM: $\nabla L(w - \rho\, \hat v)$ with v the optimizer's momentum buffer. Cost 1.

    Here w stays unperturbed, so that an evaluation at w needs no step back; what is reported in
    training belongs to the perturbed pass. Give ``opt_state``; ``momentum(opt_state)``: its buffer,
    where it is not the only ``trace`` or ``mu``. Becker, Altrock, Risse: Momentum-SAM, 2024
    (arXiv:2401.12033), whose weight decay acts at the perturbed weights.
    """
    climb = p.against_momentum(rho, momentum)
    return sharpness_aware(value_and_grad_fn, climb, needs_gradient=False, **how)


def multistep_sam(value_and_grad_fn, rho=0.05, *, ord=2, steps=3, **how) -> Gradient:
    r"""$e \leftarrow \Pi_\rho(e + \rho\, \hat g(w + e))$, ``steps`` times. Cost 1 + steps.

    Each step has the length of the radius, and is projected back onto the ball (Andriushchenko and
    Flammarion, ICML 2022).
    """
    return in_ball(value_and_grad_fn, rho, ord=ord, steps=steps, **how)


def exact_sam(value_and_grad_fn, rho=0.05, *, ord=2, steps=1, **how) -> Gradient:
    r"""$(I + \partial e / \partial w)^T\, \nabla L(w + e)$: SAM's loss differentiated. Cost 4.

    The transposed product contains one with the Hessian, which SAM leaves out (Foret et al., 2021,
    equation 3). ``value_and_grad_fn`` must be differentiable.
    """
    return in_ball(value_and_grad_fn, rho, ord=ord, steps=steps, through=True, **how)


def sam_on(value_and_grad_fn, rho=0.5, *, where=None, ord=2, steps=1, **how) -> Gradient:
    r"""SAM-ON: $\rho\, \hat g$ over scales and shifts of normalization layers alone. Cost 2.

    ``where(params)`` says which leaves; default: those beside a leaf called ``scale``. The norm is
    theirs alone. Mueller, Vlaar, Rolnick, Hein: Normalization Layers Are All That Sharpness-Aware
    Minimization Needs, NeurIPS 2023.
    """
    mask = p.only(where or leaves.normalization)
    return in_ball(value_and_grad_fn, rho, ord=ord, before=(mask,), steps=steps, **how)


def ssam_fisher(
    value_and_grad_fn,
    rho=0.1,
    *,
    sparsity=0.5,
    refresh=100,
    samples=128,
    split=split_leading,
    ord=2,
    **how,
) -> Gradient:
    r"""SSAM-F: $e = M \odot \rho\, \hat g$, M the weights of largest Fisher information. Cost 2.

    The norm is that of the full g, so that $\|e\| < \rho$; see ``masks.fisher_mask``, whose
    renewals come on top. Not inside ``shard_map`` (``ValueError``): a device sees but its own
    examples. Mi et al.: Make Sharpness-Aware Minimization Stronger, NeurIPS 2022.
    """
    if how.get("axis_name"):
        raise ValueError(
            f"axis_name={how['axis_name']!r}: must be None, the mask would be that of one device; "
            "shard the batch under jit instead"
        )
    mask = masks.fisher_mask(sparsity, refresh, samples, split)
    return in_ball(value_and_grad_fn, rho, ord=ord, after=(mask,), **how)


def ssam_dynamic(
    value_and_grad_fn,
    rho=0.1,
    *,
    sparsity=0.5,
    drop_rate=0.5,
    refresh=100,
    total=10_000,
    ord=2,
    key,
    **how,
) -> Gradient:
    r"""SSAM-D: $e = M \odot \rho\, \hat g$, M random at first, then grown and dropped. Cost 2.

    See ``masks.dynamic_mask``. Not ``per_device`` (``ValueError``): each device would grow a mask
    of its own. Mi et al., NeurIPS 2022.
    """
    if how.get("per_device"):
        raise ValueError("per_device=True: must be False, devices would grow masks of their own")
    check("drop_rate", drop_rate, most=1)
    check("total", total, least=1)
    mask = masks.dynamic_mask(sparsity, drop_rate, refresh, total)
    return in_ball(value_and_grad_fn, rho, ord=ord, after=(mask,), key=key, **how)


def friendly_sam(
    value_and_grad_fn, rho=0.05, *, sigma=1.0, decay=0.9, ord=2, steps=1, **how
) -> Gradient:
    r"""$e = \rho\, \hat d$, $d = g - \sigma m$, m the running mean of the gradients before. Cost 2.

    One more copy of the weights. Li, Zhou, He, Cheng, Huang: Friendly SAM, CVPR 2024.
    """
    check("sigma", sigma)
    before = (averages.drop_mean(sigma, decay),)
    return in_ball(value_and_grad_fn, rho, ord=ord, before=before, steps=steps, **how)


def vasso(value_and_grad_fn, rho=0.05, *, theta=0.9, ord=2, steps=1, **how) -> Gradient:
    r"""$e = \rho\, \hat d$, $d \leftarrow (1 - \theta) d + \theta g$: a steadier direction. Cost 2.

    theta = 1 is SAM. One more copy of the weights. Li, Giannakis: Enhancing Sharpness-Aware
    Optimization Through Variance Suppression, NeurIPS 2023.
    """
    before = (averages.smooth(theta),)
    return in_ball(value_and_grad_fn, rho, ord=ord, before=before, steps=steps, **how)
