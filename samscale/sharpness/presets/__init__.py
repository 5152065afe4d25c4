r"""The methods by name. Each maps ``(value_and_grad_fn, rho)`` to a ``Gradient``.

``rho`` may be traced, so that one compiled program serves a grid of radii.
"""

import inspect
import math

from samscale.sharpness.bayesian import bsam
from samscale.sharpness.presets.ascents import (
    asam,
    asam_all,
    exact_sam,
    fisher_sam,
    friendly_sam,
    layer_sam,
    m_sam,
    momentum_sam,
    multistep_sam,
    random_sam,
    sam,
    sam_on,
    ssam_dynamic,
    ssam_fisher,
    usam,
    vasso,
)
from samscale.sharpness.presets.combinations import (
    esam,
    gsam,
    look_layer_sam,
    looksam,
    periodic_sam,
    step_size_sam,
    wsam,
    wsam_coupled,
)
from samscale.sharpness.second_order import sassha

PRESETS = {
    preset.__name__: preset
    for preset in (
        sam,
        usam,
        m_sam,
        asam,
        asam_all,
        layer_sam,
        fisher_sam,
        random_sam,
        momentum_sam,
        multistep_sam,
        exact_sam,
        sam_on,
        ssam_fisher,
        ssam_dynamic,
        friendly_sam,
        vasso,
        gsam,
        wsam,
        wsam_coupled,
        looksam,
        look_layer_sam,
        periodic_sam,
        step_size_sam,
        esam,
        bsam,
        sassha,
    )
}
_COSTS = {  # gradients in every step, and those of a full one on top; the others: 1 and 1
    "random_sam": (0, 1),
    "momentum_sam": (0, 1),
    "exact_sam": (1, 3),  # with a product with the Hessian, forward and back
    "sassha": (2, 2),
}


def gradients(name, num_steps, *, every=None, steps=None, gamma=None) -> float:
    """What ``num_steps`` steps of a method cost, in gradients of the whole batch.

    ``every``, ``steps`` and, of ``esam``, ``gamma``: the preset's own unless given. The renewals of
    ``ssam_fisher`` are left out. Raises ``ValueError`` for a name that is no preset's.
    """
    if name not in PRESETS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(sorted(PRESETS))}")
    own = {n: p.default for n, p in inspect.signature(PRESETS[name]).parameters.items()}
    every = own.get("every", 1) if every is None else every
    steps = own.get("steps", 1) if steps is None else steps
    gamma = own.get("gamma", 1) if gamma is None else gamma
    always, full = _COSTS.get(name, (1, 1))
    if name == "esam" and gamma < 1:
        full = 1 / 3 + gamma
    return always * num_steps + full * steps * math.ceil(num_steps / every)
