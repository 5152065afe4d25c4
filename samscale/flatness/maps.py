r"""The map of a step near a minimum, in the mean and in the mean square, by moments of Hessians.

A step of ``stability`` takes the distance x to the minimum to $(I - \eta K_B) x$, with
$K_B = H_B + \rho H_B^2$. Moments are $M_k = E[H_i^k]$, over single examples.
"""

import jax

from samscale.flatness import batches
from samscale.flatness.examples import count
from samscale.flatness.operators import Operator, hessian, moments


def hessian_moments(losses, params, data, chunk: int = 0, batch_size: int | None = None):
    r"""``moment(c, rows=None, whole=())``, the operator $E[\sum_k c_k H_B^k] + \sum_k d_k H^k$.

    Over the batches ``rows`` (m, B), indices of examples; None: over single examples. d of
    ``whole``, with H of all examples, ``batch_size`` at a time. ``chunk``: as of ``moments``.
    Other matrices serve as well where something gives theirs.
    """
    h = hessian(losses, params, data, batch_size)

    def moment(c, rows=None, whole=()):
        if rows is None and not whole and tuple(c) == (0, 1):
            return h
        taken, size = (data, 1) if rows is None else (taken_by(rows, data), rows.shape[1])
        op = moments(losses, params, taken, c, size, chunk)
        return sum((d * h**k for k, d in enumerate(whole) if d), start=op)

    return moment


def taken_by(rows, data):
    """The examples of batches (m, B), one batch after the other, each as often as it is taken."""
    return jax.tree.map(lambda a: a[rows.ravel()], data)


def differing(moment, k: int) -> Operator:
    """$M_k - H^k$."""
    unit = (0,) * k
    return moment((*unit, 1), whole=(*unit, -1))


def growth(mean: Operator, square: Operator, learning_rate: float) -> Operator:
    r"""$E[(I - \eta K_B)^2] - I = -2\eta E[K] + \eta^2 E[K^2]$; negative: linearly stable.

    ``mean``, ``square``: of ``map_moments`` or ``step_moments``, here and below.
    """
    return (-2.0 * learning_rate) * mean + learning_rate**2 * square


def map_moments(losses, params, data, rho=0.0, batch_size=1, chunk=0):
    r"""The operators $E[K_B]$ and $E[K_B^2]$, by the exact Hessians of examples, over all batches.

    In closed form for single examples, and for SGD with any batch size drawn without replacement,
    where $E[H_B^2] = (1 - s) H^2 + s M_2$ with $s = \frac{n - B}{B(n - 1)}$. For SAM every batch
    is taken by itself. Raises ``ValueError`` for a batch size that is none, or where these batches
    hold more than ``batches.MOST`` examples; ``step_growth`` then has an upper bound.
    """
    n = count(data)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size}: must be between 1 and {n}")
    return step_moments(hessian_moments(losses, params, data, chunk), n, rho, batch_size)


def step_moments(moment, n: int, rho=0.0, batch_size: int = 1):
    """The same of n examples, from the ``moment`` of ``hessian_moments`` or another."""
    if _plain(rho):
        return moment((0, 1)), _first_and_square(moment, n, batch_size, 0, 1)
    rows = None if batch_size == 1 else batches.every(n, batch_size)
    if batch_size > 1 and rows is None:
        raise ValueError(
            f"batch_size={batch_size}: all batches of {n} examples must hold at most "
            f"{batches.MOST:,} examples together, for SAM"
        )
    return step_mean(moment, n, rho, batch_size), moment((0, 0, 1, 2 * rho, rho**2), rows)


def step_mean(moment, n: int, rho=0.0, batch_size: int = 1) -> Operator:
    """E[K_B], over all batches."""
    if _plain(rho):
        return moment((0, 1))
    return _first_and_square(moment, n, batch_size, 1, rho)


def step_growth(moment, n: int, learning_rate, rho=0.0, batch_size=1, limits=None):
    r"""The growth over all batches, or an operator above it; None where neither is known.

    It is exact, in half the products of ``growth`` or fewer, but for SAM with more batches than
    ``batches.every`` lists. There ``limits`` (of ``batches.Limits``, for positive semi-definite
    $H_i$) give an upper bound. With $D = H_B - H$, whose mean is 0 and mean square V,

    $$K_B = H + \rho H^2 + R_B, \quad R_B = (I + \rho H_B) D + \rho D H,$$

    and $E[K_B^2] \preceq E[K_B]^2 + E[R_B^2]$, for a variance is at most the mean square around
    any centre. With c above all $\lambda_{\max}(H_B)$, a that of H and v that of V,
    $\|R_B x\| \le (1 + \rho c) \|D x\| + \rho \|D H x\|$ and $H V H \preceq v H^2$, so

    $$E[R_B^2] \preceq (1 + \rho (c + a)) [(1 + \rho c) V + \rho \tfrac v a H^2],$$

    by $(x + y)^2 \le (1 + \theta) x^2 + (1 + 1 / \theta) y^2$ at $\theta = \rho a / (1 + \rho
    c)$. Only the noise V of batches is multiplied by what the sharpest of them could do.
    """
    eta, s = learning_rate, learning_rate**2
    if _plain(rho):
        return _first_and_square(moment, n, batch_size, -2 * eta, s)
    rows = None if batch_size == 1 else batches.every(n, batch_size)
    if batch_size == 1 or rows is not None:
        return moment((0, -2 * eta, s - 2 * eta * rho, 2 * s * rho, s * rho**2), rows)
    if limits is None:
        return None
    mean = step_mean(moment, n, rho, batch_size)
    v, h2 = batches.variance(limits, rho)
    v *= batches.share(n, batch_size)
    return growth(mean, mean**2 + moment((0, 0, v), whole=(0, 0, h2 - v)), eta)


def _first_and_square(moment, n, batch_size, first, second):
    r"""``first`` E[H_B] + ``second`` E[H_B^2], over all batches of different examples."""
    s = batches.share(n, batch_size)
    return moment((0, 0, second * s), whole=(0, first, second * (1 - s)))


def _plain(rho):
    return isinstance(rho, float | int) and rho == 0
