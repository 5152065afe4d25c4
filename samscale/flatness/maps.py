r"""The map of a step near a minimum, in the mean and in the mean square, by moments of Hessians.

A step of ``stability`` takes the distance x to the minimum to $(I - \eta K_B) x$, with
$K_B = H_B + \rho H_B^2$. Moments are $M_k = E[H_i^k]$, over single examples.
"""

import jax

from samscale.flatness.examples import count
from samscale.flatness.operators import Operator, hessian, moments


def hessian_moments(losses, params, data, chunk: int = 0, batch_size: int | None = None):
    r"""``moment(c, group=1, whole=())``, the operator $E[\sum_k c_k H_B^k] + \sum_k d_k H^k$.

    Over batches B of ``group`` consecutive examples, a last one that is not full left out, with d
    of ``whole`` and H of all examples, ``batch_size`` at a time. ``chunk``: as of ``moments``.
    Other matrices serve as well where something gives theirs.
    """
    n, h = count(data), hessian(losses, params, data, batch_size)

    def moment(c, group=1, whole=()):
        if not whole and tuple(c) == (0, 1):
            return h
        full = jax.tree.map(lambda a: a[: n - n % group], data)
        op = moments(losses, params, full, c, group, chunk)
        return sum((d * h**k for k, d in enumerate(whole) if d), start=op)

    return moment


def differing(moment, k: int) -> Operator:
    """$M_k - H^k$."""
    unit = (0,) * k
    return moment((*unit, 1), whole=(*unit, -1))


def growth(mean: Operator, square: Operator, learning_rate: float) -> Operator:
    r"""$E[(I - \eta K_B)^2] - I = -2\eta E[K] + \eta^2 E[K^2]$; negative: linearly stable.

    ``mean``, ``square``: of ``map_moments`` or ``step_moments``, here and below.
    """
    return (-2.0 * learning_rate) * mean + learning_rate**2 * square


def map_moments(losses, params, data, rho=0.0, batch_size=1, key=None, chunk=0):
    r"""The operators $E[K_B]$ and $E[K_B^2]$, by the exact Hessians of examples.

    Exact for single examples, and for SGD with any batch size drawn without replacement, where
    $E[H_B^2] = (1 - s) H^2 + s M_2$ with $s = \frac{n - B}{B(n - 1)}$. For SAM with batches the
    mean is over n / B batches, shuffled by ``key``. Raises ``ValueError`` for a batch size that
    does not divide n, or a shuffle without a key.
    """
    n = count(data)
    plain = _plain(rho)
    if not 1 <= batch_size <= n or (n % batch_size and not plain):
        law = f"be between 1 and {n}" if plain else f"divide the {n} examples, for SAM"
        raise ValueError(f"batch_size={batch_size}: must {law}")
    if batch_size > 1 and not plain:
        if key is None:
            raise ValueError("key=None: must be a random key where batches of SAM are drawn")
        order = jax.random.permutation(key, n)
        data = jax.tree.map(lambda a: a[order], data)
    return step_moments(hessian_moments(losses, params, data, chunk), n, rho, batch_size)


def step_moments(moment, n: int, rho=0.0, batch_size: int = 1):
    """The same of n examples, from the ``moment`` of ``hessian_moments`` or another."""
    if batch_size == 1 or not _plain(rho):
        c = (0, 0, 1, 2 * rho, rho**2)
        return moment((0, 1, rho), batch_size), moment(c, batch_size)
    return moment((0, 1)), _first_and_square(moment, n, batch_size, 0, 1)


def step_growth(moment, n: int, learning_rate, rho=0.0, batch_size: int = 1):
    """E[K] and the growth, from moments too, in half the products of ``growth`` or fewer.

    Over all batches there are, but for the growth of SAM's, which is over those given.
    """
    eta, s = learning_rate, learning_rate**2
    if _plain(rho):
        return moment((0, 1)), _first_and_square(moment, n, batch_size, -2 * eta, s)
    growing = moment((0, -2 * eta, s - 2 * eta * rho, 2 * s * rho, s * rho**2), batch_size)
    return _first_and_square(moment, n, batch_size, 1, rho), growing


def share(n: int, batch_size: int) -> float:
    r"""s of $E[H_B^2] = (1 - s) H^2 + s M_2$, over batches of different examples of n."""
    return (n - batch_size) / (batch_size * (n - 1)) if n > 1 else 1.0


def _first_and_square(moment, n, batch_size, first, second):
    r"""``first`` E[H_B] + ``second`` E[H_B^2], over all batches of different examples."""
    s = share(n, batch_size)
    return moment((0, 0, second * s), whole=(0, first, second * (1 - s)))


def _plain(rho):
    return isinstance(rho, float | int) and rho == 0
