r"""All batches of B different examples of n: listed where they are few, bounded where they are not.

A step of training draws any of them, not only those of one shuffle, so a statement about a batch
size must hold over all $\binom n B$. Here H is the mean of the $H_i$ and
$V = E[H_B^2] - H^2 = s (M_2 - H^2)$, with s of ``share``, all positive semi-definite.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

MOST = 20_000  # examples in all batches together, up to which every batch is taken by itself


class Limits(NamedTuple):
    """What is never exceeded: upper bounds of largest eigenvalues."""

    mean: float  # of H
    example: float  # of every example's H_i
    batch: float  # of every batch's H_B
    spread: float  # of V


def share(n: int, batch_size: int) -> float:
    r"""$s = \frac{n - B}{B(n - 1)}$ of $E[H_B^2] = (1 - s) H^2 + s M_2$, over all batches."""
    return (n - batch_size) / (batch_size * (n - 1)) if n > 1 else 1.0


def every(n: int, batch_size: int) -> np.ndarray | None:
    """(m, B), the examples of each of the m batches; None where they are more than ``MOST``."""
    if math.comb(n, batch_size) * batch_size > MOST:
        return None
    return np.array(list(itertools.combinations(range(n), batch_size)))


def sharpest(largest, mean: float, batch_size: int) -> float:
    r"""A bound on the largest eigenvalue of every batch's $H_B$, from those of examples and of H.

    $\lambda_{\max}(H_B)$ is at most the mean of $\lambda_{\max}(H_i)$ over B, so at most that of
    the B ``largest`` (n,); and $H_B \preceq \frac nB H$, for the other examples only add to H.
    """
    largest = np.sort(np.asarray(largest, np.float64))
    return float(min(largest[-batch_size:].mean(), len(largest) / batch_size * mean))


def mean_powers(values, batch_size: int) -> np.ndarray:
    r"""$E[h_B^k]$ for k = 1, ..., 4, where $h_B$ is the mean of ``values`` (n,) over a batch.

    Exact, over all batches. With $p_j$ the chance that j given examples are all in a batch, sums of
    products over different examples are taken apart into power sums; those of deviations from the
    mean, whose own sum is 0, leave four terms.
    """
    values = np.asarray(values, np.float64)
    n, size = len(values), batch_size
    p = [math.perm(size, j) / math.perm(n, j) if j <= n else 0.0 for j in range(5)]
    center = values.mean()
    sums = [((values - center) ** k).sum() for k in range(5)]
    deviation = np.array(
        [
            1.0,
            0.0,
            (p[1] - p[2]) * sums[2],
            (p[1] - 3 * p[2] + 2 * p[3]) * sums[3],
            (p[1] - 7 * p[2] + 12 * p[3] - 6 * p[4]) * sums[4]
            + 3 * (p[2] - 2 * p[3] + p[4]) * sums[2] ** 2,
        ]
    ) / float(size) ** np.arange(5)
    binomial = [[math.comb(k, j) * center ** (k - j) for j in range(k + 1)] for k in range(1, 5)]
    return np.array([np.dot(terms, deviation[: len(terms)]) for terms in binomial])


def variance(limits: Limits, rho) -> tuple[float, float]:
    """The factors of V and of H^2 in the bound of ``maps.step_growth`` on E[R_B^2]."""
    a, _, c, v = limits
    wide = 1 + rho * (c + a)
    return wide * (1 + rho * c), wide * rho * v / a if a > 0 else 0.0


def safe_rate(limits: Limits, n: int, rho: float, batch_size: int) -> float:
    r"""A rate up to which (5) holds over all batches of B of n examples, in closed form.

    It is a lower bound of the largest such rate: the larger of two, for $H_i \succeq 0$. Let a, A,
    c and v be the ``limits`` and $m = \min(c, (1 - s) a + s A)$, so that $E[H_B^2] \preceq m H$.

    On [0, c] the convex $g(x) = -2 (1 + \rho x) + \eta x (1 + \rho x)^2$ lies below its chord, so
    that $-2 \eta K_B + \eta^2 K_B^2 = \eta H_B g(H_B) \preceq -2 \eta H_B + \eta (\eta (1 +
    \rho c)^2 - 2 \rho) H_B^2$. Its mean is at most 0 for $\eta \le (2 / m + 2 \rho) / (1 + \rho
    c)^2$. With m = c that is ``stability.safe_rate`` of c, with $\rho = 0$ it is 2 / m.

    The bound of ``maps.step_growth`` gives $E[K_B^2] \preceq \kappa E[K_B]$, for $E[K_B]^2 \preceq
    (a + \rho (a^2 + v)) E[K_B]$, $V \preceq s A H$, $H^2 \preceq a H$ and $H \preceq E[K_B]$, and
    with it $2 / \kappa$.
    """
    a, example, c, v = limits
    if not a > 0:
        return math.inf
    s = share(n, batch_size)
    m = min(c, (1 - s) * a + s * example)
    of_v, of_square = variance(limits, rho)
    kappa = a + rho * (a**2 + v) + of_v * s * example + of_square * a
    return max((2 / m + 2 * rho) / (1 + rho * c) ** 2, 2 / kappa)


def square_growth(values, mean: float, learning_rate, rho: float, batch_size: int) -> float:
    r"""A lower bound on how much $E\|x\|^2$ grows in a step in the long run, as a share; < 0: none.

    The map $X \mapsto E[A X A]$ of second moments, $A = I - \eta K_B$, is symmetric, so its
    spectral radius is at least its Rayleigh quotient at $X = x x^\top$, which is
    $E[(x^\top A x)^2] = 1 - 2 \eta E[k_B] + \eta^2 E[k_B^2]$ with $k_B = x^\top K_B x$. With
    $h_B = x^\top H_B x \ge 0$, $k_B = h_B + \rho \|H_B x\|^2 \ge h_B + \rho h_B^2$, whose mean
    square over all batches is known exactly from ``values`` (n,), $x^\top H_i x$ of the examples.
    ``mean``: $E[k_B]$, exact as well.
    """
    powers = mean_powers(values, batch_size)
    square = max(powers[1] + 2 * rho * powers[2] + rho**2 * powers[3], mean**2)
    return learning_rate * (learning_rate * square - 2 * mean)
