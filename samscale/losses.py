r"""What a network's outputs are held against: sums and a count, never a mean.

Padding, masked examples and missing labels then cannot bias anything that is averaged later.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def means(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums over examples (or labels) -> means; a count of zero gives zero."""
    count = jnp.where(sums["count"] > 0, sums["count"], 1)
    return {name: value / count for name, value in sums.items() if name != "count"}


def cross_entropy(outputs, y, weight, smoothing=0.0):
    r"""Softmax cross entropy in nats. ``outputs``: (n, classes), ``y``: (n,) classes.

    ``smoothing``: the share $\alpha$ of a label that is spread over all classes, its own too:
    $(1 - \alpha)\, CE(y) + \alpha\, \overline{CE}$ (Szegedy et al., 2016).
    """
    outputs = _valid(outputs, weight)
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(outputs).mean(-1)
    return _sums(weight, loss=loss, accuracy=outputs.argmax(-1) == y)


def squared(outputs, y, weight):
    r"""$\|f(x) - y\|^2$, without the half; summed over outputs, missing (NaN) targets left out.

    ``y``: (n,) classes, taken as one-hot vectors, or real targets shaped as ``outputs``.
    """
    outputs = _valid(outputs, weight)
    classes = jnp.issubdtype(y.dtype, jnp.integer)
    target = jax.nn.one_hot(y, outputs.shape[-1], dtype=outputs.dtype) if classes else y
    present = ~jnp.isnan(target)
    residual = jnp.where(present, outputs - jnp.where(present, target, 0), 0)
    loss = (residual**2).reshape(len(y), -1).sum(-1)
    accuracy = {"accuracy": outputs.argmax(-1) == y} if classes else {}
    counted = weight * present.reshape(len(y), -1).any(-1)
    return _sums(counted, loss=loss, **accuracy)


def binary_cross_entropy(outputs, y, weight):
    """Several yes/no labels an example: (n, labels), NaN where missing. Counts labels, not rows."""
    if y.shape != outputs.shape:
        raise ValueError(
            f"loss='binary_cross_entropy': labels must be shaped {outputs.shape}, not {y.shape}"
        )
    outputs = _valid(outputs, weight)
    present = ~jnp.isnan(y)
    loss = optax.sigmoid_binary_cross_entropy(outputs, jnp.where(present, y, 0))
    correct = (outputs > 0) == (y > 0.5)
    return _sums(weight[:, None] * present, loss=loss, accuracy=correct)


LOSSES = {
    "cross_entropy": cross_entropy,
    "squared": squared,
    "binary_cross_entropy": binary_cross_entropy,
}


def _valid(outputs, weight):
    """Zero where a row does not count: NaN there would reach the gradient through the product."""
    return jnp.where(weight.reshape(-1, *(1,) * (outputs.ndim - 1)) > 0, outputs, 0)


def _sums(weight, **values):
    # where, not a product: a padded row may hold anything, infinity too
    total = lambda v: jnp.where(weight > 0, weight * v, 0).sum()
    return {**{name: total(v) for name, v in values.items()}, "count": weight.sum()}


def criterion(name: str, smoothing: float = 0.0):
    """``(outputs, batch) -> (n,)``: the loss of each example; None where labels are what counts."""
    if name == "cross_entropy":
        return functools.partial(exact_cross_entropy, smoothing=smoothing)
    return squared_errors if name == "squared" else None


def exact_cross_entropy(outputs, batch, smoothing=0.0):
    r"""Cross entropy of each example (n,) in nats, as $\log(1 + \sum_{j \ne y} e^{z_j - z_y})$.

    The same function as in ``cross_entropy``, without its cancellation: derivatives stay right to
    rounding however small the loss, as curvature near interpolation needs.
    """
    y = batch["y"][:, None]
    own = jnp.take_along_axis(outputs, y, axis=-1)
    other = jnp.arange(outputs.shape[-1])[None] != y
    away = jnp.where(other, outputs - own, -jnp.inf)
    loss = jax.nn.softplus(jax.nn.logsumexp(away, axis=-1))
    return loss + smoothing * (own[:, 0] - outputs.mean(-1)) if smoothing else loss


def squared_errors(outputs, batch):
    """``squared`` of each example (n,)."""
    y = batch["y"]
    if jnp.issubdtype(y.dtype, jnp.integer):
        y = jax.nn.one_hot(y, outputs.shape[-1], dtype=outputs.dtype)
    present = ~jnp.isnan(y)
    residual = jnp.where(present, outputs - jnp.where(present, y, 0), 0)
    return (residual**2).reshape(len(y), -1).sum(-1)
