r"""What a network's outputs are held against: sums and a count, never a mean.

Padding, masked examples and missing labels then cannot bias anything that is averaged later.
Shapes must fit one another; nothing is broadcast but a weight an example over what the example
holds. A label that is no class, or no share from 0 to 1, is never trained on as another one: where
its value is known (outside ``jit``) it raises ``ValueError``, and else the loss is NaN.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from samscale import labels


def means(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums over examples (or labels) -> means; a count of zero gives zero."""
    count = jnp.where(sums["count"] > 0, sums["count"], 1)
    return {name: value / count for name, value in sums.items() if name != "count"}


def cross_entropy(outputs, y, weight, smoothing=0.0):
    r"""Softmax cross entropy in nats, summed over labels.

    ``outputs``: (n, ..., classes) real numbers. ``y``: (n, ...) classes, whole numbers from 0 to
    classes - 1, as (n,) of examples or (n, tokens). ``weight``: (n,), of examples, or shaped as
    ``y``, of labels. Counts labels. ``smoothing``: the share $\alpha$ of a label that is spread
    over all classes, its own too: $(1 - \alpha)\, CE(y) + \alpha\, \overline{CE}$ (Szegedy et al.,
    2016). Raises ``ValueError`` for other shapes, and labels that are no classes.
    """
    outputs, weight, y, legal = labels.classes("cross_entropy", outputs, y, weight)
    outputs = _valid(outputs, weight)
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, y)
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * jax.nn.log_softmax(outputs).mean(-1)
    loss = jnp.where(legal, loss, jnp.nan)
    return _sums(weight, loss=loss, accuracy=outputs.argmax(-1) == y)


def squared(outputs, y, weight):
    r"""$\|f(x) - y\|^2$, without the half; summed over outputs, missing (NaN) targets left out.

    ``y``: real targets shaped as ``outputs`` (n, ...), but for an axis of length 1 at the end that
    either may lack, with ``weight`` (n,); counts examples. Or classes, as ``cross_entropy`` takes
    them, for one-hot targets; counts labels. Raises ``ValueError`` for other shapes, and labels
    that are no classes.
    """
    if labels.are_classes(y):
        outputs, weight, y, legal = labels.classes("squared", outputs, y, weight)
        outputs = _valid(outputs, weight)
        loss = ((outputs - jax.nn.one_hot(y, outputs.shape[-1], dtype=outputs.dtype)) ** 2).sum(-1)
        loss = jnp.where(legal, loss, jnp.nan)
        return _sums(weight, loss=loss, accuracy=outputs.argmax(-1) == y)
    outputs, weight, y = labels.targets("squared", outputs, y, weight)
    loss, present = _residuals(_valid(outputs, weight), y)
    return _sums(jnp.where(present.reshape(len(y), -1).any(-1), weight, 0), loss=loss)


def binary_cross_entropy(outputs, y, weight):
    """Several yes/no labels an example, NaN where missing. Counts labels, not rows.

    ``outputs``: (n, ...) log odds. ``y``: of the same shape (but for an axis of length 1 at the end
    that either may lack), from 0 to 1. ``weight``: (n,). Raises ``ValueError`` for other shapes,
    and labels outside of 0 to 1.
    """
    outputs, weight, y, legal = labels.shares("binary_cross_entropy", outputs, y, weight)
    outputs = _valid(outputs, weight)
    present = ~jnp.isnan(y)
    loss = optax.sigmoid_binary_cross_entropy(outputs, jnp.where(present, y, 0))
    loss = jnp.where(legal, loss, jnp.nan)
    correct = (outputs > 0) == (y > 0.5)
    counted = jnp.where(present, labels.spread(weight, present), 0)
    return _sums(counted, loss=loss, accuracy=correct)


LOSSES = {
    "cross_entropy": cross_entropy,
    "squared": squared,
    "binary_cross_entropy": binary_cross_entropy,
}


def _valid(outputs, weight):
    """Zero where a row does not count: NaN there would reach the gradient through the product."""
    return jnp.where(labels.spread(weight, outputs) > 0, outputs, jnp.zeros_like(outputs))


def _residuals(outputs, y):
    """The squares, summed over all axes of an example, and which of its targets there are."""
    present = ~jnp.isnan(y)
    residual = jnp.where(present, outputs - jnp.where(present, y, 0), 0)
    return (residual**2).reshape(len(y), -1).sum(-1), present


def _sums(weight, **values):
    # where, not a product: a padded row may hold anything, infinity too
    total = lambda v: jnp.where(weight > 0, weight * v.astype(weight.dtype), 0).sum()
    return {**{name: total(v) for name, v in values.items()}, "count": weight.sum()}


def criterion(name: str, smoothing: float = 0.0):
    """``(outputs, batch) -> (n,)``: the loss of each example; None where labels are what counts."""
    if name == "cross_entropy":
        return functools.partial(exact_cross_entropy, smoothing=smoothing)
    return squared_errors if name == "squared" else None


def exact_cross_entropy(outputs, batch, smoothing=0.0):
    r"""Cross entropy of each example (n,) in nats, as $\log(1 + \sum_{j \ne y} e^{z_j - z_y})$.

    ``outputs``: (n, classes), ``batch["y"]``: (n,), as for ``cross_entropy``. The same function,
    without its cancellation: derivatives stay right to rounding however small the loss, as
    curvature near interpolation needs. Raises ``ValueError`` as ``cross_entropy`` does.
    """
    outputs, y, legal = _labelled("exact_cross_entropy", outputs, batch)
    if outputs.ndim != 2:
        raise ValueError(f"exact_cross_entropy: outputs must be (n, classes), not {outputs.shape}")
    # an index beyond the end gives NaN, and leaves the arithmetic of all others as it is
    y = jnp.where(legal, y, outputs.shape[-1])[:, None]
    own = jnp.take_along_axis(outputs, y, axis=-1, mode="fill")
    other = jnp.arange(outputs.shape[-1])[None] != y
    away = jnp.where(other, outputs - own, -jnp.inf)
    loss = jax.nn.softplus(jax.nn.logsumexp(away, axis=-1))
    return loss + smoothing * (own[:, 0] - outputs.mean(-1)) if smoothing else loss


def squared_errors(outputs, batch):
    """``squared`` of each example (n,)."""
    y = batch["y"]
    if labels.are_classes(y):
        outputs, y, legal = _labelled("squared_errors", outputs, batch)
        y = jax.nn.one_hot(y, outputs.shape[-1], dtype=outputs.dtype)
        return jnp.where(legal.reshape(len(y), -1).all(-1), _residuals(outputs, y)[0], jnp.nan)
    outputs, _, y = labels.targets("squared_errors", outputs, y, np.ones(len(y), np.float32))
    return _residuals(outputs, y)[0]


def _labelled(loss, outputs, batch):
    """Outputs, classes, and whether they are any, of a batch with or without weights."""
    weight = batch.get("weight", np.ones(len(batch["y"]), np.float32))
    outputs, _, y, legal = labels.classes(loss, outputs, batch["y"], weight)
    return outputs, y, legal
