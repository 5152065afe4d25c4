"""Numbers under their names, with what is known of their errors beside them."""

import numpy as np

from samscale.flatness import operators
from samscale.flatness.estimates import Estimate, Probed
from samscale.flatness.krylov import eigenpairs

SMALL = 100  # weights: of so few, eigenvalues are found to rounding
ASKED = 3e-3  # of an eigenvalue, its residual: at 1e-2 searches now and then stop at a smaller one


def ends(op, key, k=1, which="largest", asked=ASKED, most=1000, weights=None):
    """Eigenpairs, and the residual asked for: rounding where ``weights`` are few."""
    if (weights or op.size) <= SMALL:
        asked, most = 0.0, 10 * SMALL
    return eigenpairs(op, key, k, which, asked, max_products=most), asked


def spectrum_of_few(op):
    """All eigenvalues, of the dense matrix, in float64."""
    return np.linalg.eigvalsh(np.asarray(operators.matrix(op), np.float64))


def exactly(op) -> Probed:
    """What probes would tell of so few weights, without an error."""
    dense = np.asarray(operators.matrix(op), np.float64)
    sure = lambda value: Estimate(float(value), 0.0, op.size)
    diagonal = dense.diagonal()
    return Probed(sure(dense.trace()), sure((dense**2).sum()), diagonal, 0 * diagonal)


def eigenvalues(pairs, *names, asked=ASKED):
    """With residuals: some eigenvalue of the operator is as near as that."""
    found = {}
    asked = np.broadcast_to(asked, len(names))
    for name, value, error, most in zip(names, pairs.values, pairs.residuals, asked, strict=True):
        found |= {name: float(value), f"{name}_residual": float(error)}
        if not pairs.converged and error > most * abs(value):
            found[f"{name}_converged"] = 0.0
    return found


def with_error(name, estimate):
    return {name: estimate.value, f"{name}_se": estimate.error}
