"""Which training examples are held out: a function of the labels, a fraction and a seed."""

import numpy as np

from samscale.data.dataset import generator


def stratified_split(y, validation_fraction, split_seed):
    """Sorted ``(train, held)`` indices; exactly ``round(validation_fraction * n)`` are held out.

    Every class gives its share of them, up to the rounding to whole examples, which goes to the
    classes with the largest remainders (on a tie to the lower class).
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(
            f"validation_fraction={validation_fraction}: must be at least 0 and less than 1"
        )
    classes, sizes = np.unique(y, return_counts=True)
    total = round(validation_fraction * len(y))
    if validation_fraction and not 0 < total < len(y):
        raise ValueError(
            f"validation_fraction={validation_fraction}: must be 0, or hold out some and not all "
            f"of {len(y)} examples, not {total}"
        )
    quotas = _largest_remainder(validation_fraction * sizes, total)
    order = generator(split_seed, "split").permutation(len(y))
    held = np.zeros(len(y), bool)
    for label, quota in zip(classes, quotas, strict=True):
        held[order[y[order] == label][:quota]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _largest_remainder(shares, total):
    """Whole numbers that sum to ``total``, each within one of its share."""
    counts = np.floor(shares).astype(int)
    by_remainder = np.argsort(counts - shares, kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    return counts
