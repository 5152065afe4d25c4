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

BATCH = 64  # examples whose units are held at a time


def compared(activations, start, params, data) -> dict[str, float]:
    """``activation_stability``, ``active_share``, ``feature_rank``, ``feature_components``.

    ``activations(params, batch)`` and ``start(batch)``, the same at initialization, give (units,
    features): a pytree of what ReLUs are given, (n, ...) each, and what the last layer is given,
    (n, d). Without units the first two numbers are left out. Two forward passes; of all examples
    together only features are held.
    """
    same, on, seen, size = jax.device_get(_counted(activations, start, params, data))
    total = int(size.sum())
    shares = {}
    if total:  # sums of what an example counts, in 64 bits
        shares = {"activation_stability": same.sum(dtype=np.int64) / total}
        shares |= {"active_share": on.sum(dtype=np.int64) / total}
    return {**shares, **rank(seen)}


@jax.jit
def _counted(activations, start, params, data):
    """Of each example: units on their side, units that are on, features, units."""

    def one(example):
        batch = jax.tree.map(lambda a: a[None], example)
        (units, features), (before, _) = activations(params, batch), start(batch)
        pairs = list(zip(jax.tree.leaves(units), jax.tree.leaves(before), strict=True))
        count = lambda f: sum((f(a, b).sum() for a, b in pairs), jnp.zeros((), int))
        same, on = count(lambda a, b: (a > 0) == (b > 0)), count(lambda a, b: a > 0)
        return same, on, features[0], jnp.asarray(sum(a.size for a, _ in pairs))

    return jax.lax.map(one, data, batch_size=BATCH)


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
