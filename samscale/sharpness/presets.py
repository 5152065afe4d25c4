r"""The methods by name. Each maps ``(value_and_grad_fn, rho)`` to a ``Gradient``.

``rho`` may be traced, so that one compiled program serves a grid of radii.
"""

from samscale.sharpness.core import Gradient, sharpness_aware
from samscale.sharpness.perturbations import times, to_sphere


def sam(value_and_grad_fn, rho=0.05) -> Gradient:
    r"""$\nabla L(w + \rho\, g / \|g\|)$ with $g = \nabla L(w)$. Two gradient evaluations.

    Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization for Efficiently Improving
    Generalization, ICLR 2021.
    """
    return sharpness_aware(value_and_grad_fn, to_sphere(rho))


def usam(value_and_grad_fn, rho=0.05) -> Gradient:
    r"""$\nabla L(w + \rho\, g)$: unnormalised SAM. Two gradient evaluations.

    The ascent scales with the loss: summed instead of averaged, it is another method.
    Andriushchenko, Flammarion: Towards Understanding Sharpness-Aware Minimization, ICML 2022.
    """
    return sharpness_aware(value_and_grad_fn, times(rho))


PRESETS = {"sam": sam, "usam": usam}
