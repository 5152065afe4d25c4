r"""Linear stability of a minimum under stochastic SAM and SGD, from moments of Hessians.

Near an interpolating minimum a step on batch B maps the distance x to it to $(I - \eta K_B) x$,
with $K_B = H_B + \rho H_B^2$ for unnormalized SAM and $H_B$ for SGD. The mean square cannot grow if

$$\lambda_{\max}(E[(I - \eta K_B)^2]) \le 1,$$

condition (5) of theorem 6.3 of Shin et al., 2025 (arXiv:2311.17539), written compactly. It is
sufficient, not necessary. $0 \le \eta \lambda(E[K_B]) \le 2$ for all eigenvalues is necessary: else
the mean grows.
Moments are $M_k = E[H_i^k]$, over single examples. ``dynamics`` has the exact growth of the mean
square, and simulates it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from samscale.flatness import krylov
from samscale.flatness.entries import SMALL
from samscale.flatness.maps import differing, growth, hessian_moments
from samscale.flatness.operators import Operator, matrix

ROUNDING = 1e-5  # of E[K], below which a growth is none: most directions neither grow nor shrink
WORDS = {
    True: "linearly stable",
    False: "unstable: the mean square grows",
    None: "cannot tell: neither decay nor growth of the mean square is proved",
}


class NonUniformity(NamedTuple):
    r"""$s_k$ and both ends of the spectrum of $M_k - H^k$, with the residual of the larger one."""

    value: float  # s_k = largest^(1/k), in the unit of an eigenvalue
    largest: float
    smallest: float | None  # where asked for, with odd k: the matrix need not be positive
    residual: float
    products: int


class Verdict(NamedTuple):
    """Whether iterates stay near the minimum at a learning rate, a radius and a batch size."""

    stable: bool | None  # None: neither condition decides
    excess: float  # lambda_max of the mean square of the step's map, less 1; NaN: not known
    mean_rate: float  # eta lambda_max(E[K]): the mean grows beyond 2

    @property
    def words(self) -> str:
        return WORDS[self.stable]


def non_uniformity(losses, params, data, key, k: int = 2, tolerance=3e-3, chunk: int = 0):
    r"""$s_k = \lambda_{\max}(M_k - H^k)^{1/k}$, the non-uniformity of order k over single examples.

    k = 2 is that of Wu, Ma and E, 2018; k = 3, 4 of Shin et al., 2025. Zero where all examples bend
    the loss alike. For odd k the matrix may be indefinite, so its smallest eigenvalue is given too.
    A Lanczos step costs k products of Hessians of all examples, one direction each. What float32
    cancels is told by ``uncertainty``. Raises ``ValueError`` for k < 2.
    """
    if k < 2:
        raise ValueError(f"k={k}: must be at least 2")
    op = differing(hessian_moments(losses, params, data, chunk), k)
    return spread(op, key, k, tolerance, both=bool(k % 2))


def spread(op: Operator, key, k: int, tolerance=3e-3, both=False, alone=None) -> NonUniformity:
    """The same of an operator that is already $M_k - H^k$.

    ``both``: also the smallest eigenvalue, to tolerance times the largest. ``alone``: the largest
    eigenpair of $M_k$, where $H^k$ is positive semi-definite. It mostly tells that of the
    difference, none of whose eigenvalues is larger; else the difference is searched.
    """
    how = {"tolerance": tolerance, "max_products": 200}
    if alone is None:
        top = krylov.eigenpairs(op, key, **how)
    else:
        within = max(tolerance, 1e-2)  # proved, not only found: a k-th of it in s_k
        at = alone.vectors[0], within, float(alone.values[0]), alone.next
        top = krylov.bracketed(op, key, *at, **how)
    largest, low = float(top.values[0]), None
    if both:
        how["floor"] = tolerance * abs(largest)
        low = krylov.eigenpairs(op, key, which="smallest", **how)
    return NonUniformity(
        max(largest, 0.0) ** (1 / k),
        largest,
        float(low.values[0]) if low else None,
        float(top.residuals[0]),
        top.products + (low.products if low else 0),
    )


def uncertainty(found: NonUniformity, k: int, a: float, dtype) -> float:
    r"""How far $s_k$ may be off, given a = lambda_max(H): by its residual, and by cancellation.

    $M_k$ and $H^k$ are as large as $a^k$, so their difference is known to $4 \epsilon a^k$, which
    is all there is where examples are alike: an $s_k$ below $(4 \epsilon a^k)^{1/k}$ may be 0.
    """
    off = max(found.residual, 4 * float(np.finfo(np.dtype(dtype)).eps) * a**k)
    low, high = (max(found.largest + side * off, 0.0) ** (1 / k) for side in (-1, 1))
    return max(found.value - low, high - found.value) if low else high


def verdict(mean: Operator, square: Operator, key, learning_rate, tolerance=1e-2) -> Verdict:
    """Stable by the sufficient condition, unstable in the mean, or undecided between the two.

    As good as the operators: it holds over the batches that their means are over. Costs some 30
    products with each; an undecided one looks for negative curvature of the mean, too, which counts
    as what it is: away from interpolation a verdict on exact Hessians is on the quadratic model,
    not on training, and one on Gauss-Newton matrices on what interpolation leaves.
    """
    return judged(mean, growth(mean, square, learning_rate), key, learning_rate, tolerance)


def judged(
    mean: Operator,
    growing: Operator | None,
    key,
    learning_rate,
    tolerance=1e-2,
    safe: float = 0.0,
    top: float | None = None,
    grown: Callable | None = None,
) -> Verdict:
    """The same from the ``growth``, or an operator above it, as ``step_growth`` has them.

    Stable only where the mean does not grow, and either the rate is ``safe`` (nothing grows up to
    that rate, as ``safe_rate`` tells; then no growth is searched for) or ``growing`` has no
    positive eigenvalue, as far as Lanczos tells. Unstable where the mean grows, or where ``grown``
    proves it: a function of a unit vector that gives some amount by which the mean square grows in
    a step, as ``batches.square_growth`` does, tried on the direction that grows most. Without it
    the mean may have negative curvature, which is looked for. ``top``: the largest eigenvalue of
    ``mean``, where it is known.
    """
    eta = learning_rate

    def look(op, which="largest", floor=0.0):
        within = tolerance if op.size > SMALL else 0.0
        return krylov.eigenpairs(op, key, 1, which, within, max_products=100, floor=floor)

    mean_rate = eta * (float(look(mean).values[0]) if top is None else top)
    if eta <= safe and mean_rate <= 2:
        return Verdict(True, 0.0, mean_rate)
    slack = ROUNDING * abs(mean_rate)  # where it is stable, eta^2 E[K^2] is at most 2 eta E[K]
    found = None if growing is None else look(growing, floor=10 * slack)
    excess = math.nan if found is None else float(found.values[0])
    if excess <= slack and mean_rate <= 2:
        return Verdict(True, excess, mean_rate)
    grows = mean_rate > 2
    if grown is None:
        grows = grows or eta * float(look(mean, "smallest").values[0]) < -slack
    elif found is not None:
        grows = grows or grown(found.vectors[0]) > slack
    return Verdict(False if grows else None, excess, mean_rate)


def safe_rate(largest, rho: float = 0.0) -> float:
    r"""$2 / \max_i a_i (1 + \rho a_i)$: up to it (5) holds.

    ``largest``: the largest eigenvalues $a_i$ of positive semi-definite $H_i$, of all examples:
    then for batches of any size; or of all batches there are, or a bound on them. No step then
    lengthens any direction, for $0 \preceq \eta K_B \preceq 2$. No larger rate satisfies (5) with
    batches of one where the outputs of each example can be moved alone (J of full row rank, as a
    rule where parameters are more than outputs): the way that only the sharpest one sees then
    grows. Infinite where nothing bends.
    """
    a = np.asarray(largest)
    most = float((a * (1 + rho * a)).max())
    return 2 / most if most > 0 else math.inf


def largest_stable_rate(mean: Operator, square: Operator, key, tolerance=1e-3, rounds: int = 20):
    r"""The largest $\eta$ at which $-2\eta E[K] + \eta^2 E[K^2]$ has no positive eigenvalue.

    $= 2 \min_v \frac{v^\top E[K] v}{v^\top E[K^2] v}$, by Dinkelbach's iteration: each round takes
    the growing direction at the present rate, and the rate at which it would stand still; from
    above, quadratically. Up to 100 parameters in closed form: 2 over the largest generalized
    eigenvalue. 0 where a direction of negative mean curvature grows at any rate, infinity where
    nothing bends.
    """
    if mean.size <= SMALL:
        return _rate_of_few(*(np.asarray(matrix(op), np.float64) for op in (mean, square)))
    v = krylov.eigenpairs(square, key, tolerance=tolerance, max_products=200).vectors[0]
    rate = math.inf
    for _ in range(rounds):
        up, down = map(float, _forms(mean, square, v))
        if down <= 0:
            return rate
        before, rate = rate, max(2 * up / down, 0.0)
        if rate == 0 or before - rate <= tolerance * rate:
            return min(before, rate)
        op = growth(mean, square, rate)
        # the eigenvalue is 0 at the rate, and near it of a direction that bends far less than v
        floor = 1e-3 * tolerance * rate**2 * down
        v = krylov.eigenpairs(op, key, max_products=200, floor=floor).vectors[0]
    return rate


def _rate_of_few(mean, square):
    values, vectors = np.linalg.eigh(mean)
    negligible = ROUNDING * np.abs(values).max()
    bends = np.abs(values) > negligible
    still = vectors[:, ~bends]
    moves = np.abs(still.T @ square @ still).max(initial=0) > ROUNDING * np.abs(square).max()
    if values[0] < -negligible or moves:
        return 0.0
    scaled = vectors[:, bends] / np.sqrt(values[bends])
    return 2 / np.linalg.eigvalsh(scaled.T @ square @ scaled)[-1] if bends.any() else math.inf


@jax.jit
def _forms(mean, square, v):
    return v @ mean(v), v @ square(v)


def bounds(learning_rate: float, rho: float = 0.0) -> dict[str, float]:
    r"""What (5) implies for a = lambda_max(H) and $s_k$ of positive semi-definite $H_i$, at most.

    ``a``: $a(1 + \rho a) \le 2/\eta$, for every radius. ``s2``, ``s3``, ``s4``: (6) of theorem
    6.3, $\frac{1}{\eta(\eta - 2\rho)}$, $\frac{1}{2\eta^2\rho}$, $\frac{1}{\eta^2\rho^2}$ to the
    powers 1/2, 1/3, 1/4. For a unit vector v with moments $m_k$ and mean h of the spectral measures
    of the $H_i$, (5) gives $\eta(\eta - 2\rho)(m_2 - h^2) + 2\eta^2\rho(m_3 - h^3) +
    \eta^2\rho^2(m_4 - h^4) \le 1$, where no term is negative for $\rho < \eta/2$, and
    $v^\top(M_k - H^k)v \le m_k - h^k$. Beyond, the first bound has a negative right side, which
    every stable minimum violates: all three are left infinite. ``s2_any`` holds for
    every radius and batches of one: $H + \rho M_2 \le 2/\eta$, which is necessary, gives
    $s_2^2 \le \lambda_{\max}(M_2) \le 2/(\eta\rho)$.
    """
    eta = learning_rate
    a = 2 / eta if rho == 0 else 4 / (eta * (1 + math.sqrt(1 + 8 * rho / eta)))
    inside = rho < eta / 2
    both = inside and rho > 0
    return {
        "a": a,
        "s2": (eta * (eta - 2 * rho)) ** (-1 / 2) if inside else math.inf,
        "s3": (2 * eta**2 * rho) ** (-1 / 3) if both else math.inf,
        "s4": (eta * rho) ** (-1 / 2) if both else math.inf,
        "s2_any": (eta * rho / 2) ** (-1 / 2) if rho else math.inf,
    }
