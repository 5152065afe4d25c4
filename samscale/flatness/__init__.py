r"""Flatness of any loss of (params, batch): curvature, sharpness, stability, paths and landscapes.

``measures`` has all numbers of a point by name. Below it, each by itself: ``operators`` (Hessians,
Gauss-Newton matrices, Fisher matrices and moments as linear maps), ``lanczos`` and
``krylov`` (eigenpairs), ``estimates`` (trace, norm, diagonal, density), ``output_space`` (closed
forms, the whole spectrum), ``ball`` (rises within a radius), ``stability`` (over all ``batches``),
``noise``, ``path`` (smoothness and PL), ``rates`` (convergence), ``landscape`` and ``paths``
(pictures, barriers, connections).
"""

from samscale.flatness.estimates import Estimate, probed, spectrum
from samscale.flatness.krylov import Eigenpairs, eigenpairs
from samscale.flatness.measures import MEASURES, Point, measured
from samscale.flatness.operators import (
    Operator,
    fisher,
    gauss_newton,
    hessian,
    moments,
    scaled,
)

__all__ = [
    "MEASURES",
    "Eigenpairs",
    "Estimate",
    "Operator",
    "Point",
    "eigenpairs",
    "fisher",
    "gauss_newton",
    "hessian",
    "measured",
    "moments",
    "probed",
    "scaled",
    "spectrum",
]
