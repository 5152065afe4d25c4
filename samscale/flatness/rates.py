r"""How fast training converges: a fitted linear rate, and what theory promises.

Theorems 6.6 and H.3 of Shin et al., 2025 (arXiv:2311.17539): where each $f_i$ is $\beta$-smooth, f
is $\lambda$-smooth and $\alpha$-PL ($\|\nabla f\|^2 \ge \alpha f$) and interpolation holds,
unnormalized SAM on batches of B converges linearly in the mean, with the factors given here.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from samscale.flatness.operators import Operator, matrix


class Rate(NamedTuple):
    """A straight line through log losses: $f_t \\approx f_0\\, factor^t$."""

    factor: float  # per step of t, below 1 where the loss falls
    low: float  # a 95 % interval of the factor, as if residuals were independent
    high: float
    fit: float  # R^2 of log f against t: 1, exactly linear convergence


def fitted(losses, at=None) -> Rate:
    """The linear rate of positive losses (k,) seen ``at`` times (k,), 0, 1, ... unless given.

    Residuals of one run are not independent, so the interval is too narrow where ``fit`` is below
    one: over seeds, take the spread of factors. Raises ``ValueError`` for fewer than three losses
    or one that is not positive.
    """
    losses = np.asarray(losses, np.float64)
    at = np.arange(len(losses)) if at is None else np.asarray(at, np.float64)
    if losses.ndim != 1 or len(losses) < 3 or len(at) != len(losses):
        raise ValueError(f"losses: must be three numbers or more, one for each time, not {losses}")
    if not (np.isfinite(losses) & (losses > 0)).all():
        raise ValueError("losses: must be finite and greater than 0")
    line = stats.linregress(at, np.log(losses))
    half = stats.t.ppf(0.975, len(losses) - 2) * line.stderr
    factor, low, high = (math.exp(line.slope + s * half) for s in (0, -1, 1))
    return Rate(factor, low, high, float(line.rvalue**2) if np.ptp(losses) else 1.0)


def bound(beta, lam, alpha, rho: float, eta: float, batch_size: int = 1) -> float:
    r"""The factor that $E f$ is multiplied by in a step, at most, at any $\eta$.

    $1 - \eta\alpha [1 - (\kappa_B + \frac12)\beta\rho] + \eta^2 \alpha\lambda\kappa_B
    (\beta\rho + 1)^2$, $\kappa_B = \frac1B (\frac{B - 1}{2} + \frac\beta\alpha)$. Raises
    ``ValueError`` unless $\rho \le 1 / ((\beta/\alpha + \frac12)\beta)$, where it holds.
    """
    k = _kappa(beta, alpha, batch_size)
    _check(beta, alpha, rho)
    slack = 1 - (k + 0.5) * beta * rho
    return 1 - eta * alpha * slack + eta**2 * alpha * lam * k * (beta * rho + 1) ** 2


def best_rate(beta, lam, alpha, rho: float, batch_size: int = 1) -> float:
    r"""$\eta^*_B = \frac{1 - (\kappa_B + 1/2)\beta\rho}{2\lambda\kappa_B(\beta\rho + 1)^2}$."""
    k = _kappa(beta, alpha, batch_size)
    _check(beta, alpha, rho)
    return (1 - (k + 0.5) * beta * rho) / (2 * lam * k * (beta * rho + 1) ** 2)


def largest_radius(beta, alpha) -> float:
    r"""$1 / ((\beta/\alpha + \frac12)\beta)$, beyond which the theorem promises nothing."""
    return 1 / ((beta / alpha + 0.5) * beta)


def constants(hessian: Operator, example_norms) -> tuple[float, float, float]:
    r"""$\beta, \lambda, \alpha$ of a least-squares problem that can be interpolated.

    $\beta$: the largest of the examples' own Hessians' eigenvalues, ``example_norms``. $\lambda$:
    the largest of the mean Hessian. $\alpha$: twice its smallest *nonzero* one, for
    $f = \frac12 x^\top H x$ has $\|\nabla f\|^2 \ge 2 \lambda_{min} f$ on the range of H. Dense,
    for small problems.
    """
    values = np.linalg.eigvalsh(np.asarray(matrix(hessian), np.float64))
    lam = float(values[-1])
    nonzero = values[values > len(values) * np.finfo(np.dtype(hessian.dtype)).eps * lam]
    if not len(nonzero):
        raise ValueError("hessian: must have an eigenvalue above its rounding")
    return float(np.max(example_norms)), lam, 2 * float(nonzero[0])


def _kappa(beta, alpha, batch_size):
    return ((batch_size - 1) / 2 + beta / alpha) / batch_size


def _check(beta, alpha, rho):
    limit = largest_radius(beta, alpha)
    if not 0 <= rho <= limit:
        raise ValueError(f"rho={rho}: must be between 0 and {limit:.6g}, for the theorem to hold")
