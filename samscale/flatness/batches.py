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
