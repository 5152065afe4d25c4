r"""What a network's units do with the data: how far they moved, and how many directions they span.

*Activation stability* is the share of pairs of an example and a ReLU that are on or off as they
were at initialization (Chizat, Oyallon and Bach, 2019; arXiv:1812.07956): near 1, training stayed
in the linearized regime. *Ranks* are of the features that the last layer sees, centred: the number
of principal components that hold 99 % of the variance (Andriushchenko et al., 2023;
arXiv:2305.16292), and $e^{H}$ of the entropy H of the normalized singular values (Roy and
Vetterli, 2007; 10.5281/zenodo.40328), which needs no threshold.
"""

import jax
import jax.numpy as jnp
import numpy as np


def compared(now, start) -> dict[str, float]:
    """``activation_stability``, ``active_share``, ``feature_rank``, ``feature_components``.

    ``now`` and ``start``: (units, features), as ``Task.activations`` gives them: a pytree of what
    ReLUs are given, (n, ...) each, and what the last layer is given, (n, d). Without units the
    first two numbers are left out.
    """
    ranks = rank(now[1])
    pairs = list(zip(jax.tree.leaves(now[0]), jax.tree.leaves(start[0]), strict=True))
    size = sum(a.size for a, _ in pairs)
    if not size:
        return ranks
    same = sum(int(((a > 0) == (b > 0)).sum()) for a, b in pairs)
    on = sum(int((a > 0).sum()) for a, _ in pairs)
    return {"activation_stability": same / size, "active_share": on / size, **ranks}


def rank(features) -> dict[str, float]:
    r"""``feature_rank``: $e^H$; ``feature_components``: those that hold 99 % of the variance.

    ``features``: (n, d). Both are 0 where all examples look alike.
    """
    eps = float(jnp.finfo(jnp.asarray(features).dtype).eps)
    features = np.asarray(features, np.float64)
    centred = features - features.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    floor = max(centred.shape) * eps
    if values[0] <= floor * np.abs(features).max():
        return {"feature_rank": 0.0, "feature_components": 0.0}
    share = values[values > 0] / values.sum()
    held = np.cumsum(values**2) / (values**2).sum()
    components = int(np.searchsorted(held, 0.99)) + 1
    return {
        "feature_rank": float(np.exp(-(share * np.log(share)).sum())),
        "feature_components": float(components),
    }
