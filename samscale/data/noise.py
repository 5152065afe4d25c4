"""Wrong labels on purpose: exact counts, and larger fractions corrupt a superset.

Every entry of ``NOISE`` maps clean labels to the label that each example would get if it were
chosen; ``corrupt`` alone decides who is chosen. So the kinds at one seed hit the same examples,
and an example that is hit at two fractions gets the same wrong label at both.
"""

import numpy as np

from samscale.config import choose
from samscale.data.dataset import generator


def symmetric(y, num_classes, rng):
    """Another class, uniformly: a fraction p of labels is wrong, exactly."""
    return (y + rng.integers(1, num_classes, len(y))) % num_classes


def uniform(y, num_classes, rng):
    """Any class, the true one included: only about p (1 - 1/k) of the labels end up wrong."""
    return rng.integers(0, num_classes, len(y))


def pairwise(y, num_classes, rng):
    """The next class: noise with structure, which a network can learn instead of memorizing."""
    return (y + 1) % num_classes


NOISE = {"symmetric": symmetric, "uniform": uniform, "pairwise": pairwise}


def corrupt(y, label_noise, noise_kind, num_classes, noise_seed):
    """A copy of ``y`` in which exactly ``round(label_noise * n)`` labels were drawn anew."""
    relabel = choose("noise_kind", noise_kind, NOISE)
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise={label_noise}: must be between 0 and 1")
    rng = generator(noise_seed, "noise")
    order = rng.permutation(len(y))
    chosen = order[: round(label_noise * len(y))]
    noisy = np.array(y)
    noisy[chosen] = relabel(y, num_classes, rng)[chosen]
    return noisy
