r"""What a run trains: data, a network and a loss, as pure functions of parameters and a batch.

A loss returns *sums and a count* over the batch, never a mean: padding, masked examples and missing
labels then cannot bias anything that is averaged later.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from samscale import data, models
from samscale.config import Config, choose
from samscale.data.augment import AUGMENTATIONS


class Task(NamedTuple):
    """Everything a run needs to know about its problem.

    A *batch* is a dict of arrays with examples along the leading axis; an entry ``weight`` (n,),
    put there by evaluation for padding or by the data themselves, multiplies what an example adds.
    """

    train: Mapping[str, Any]  # arrays of n examples each, such as {"x": ..., "y": ...}
    validation: Mapping[str, Any]  # the same, possibly of no examples
    test: Mapping[str, Any]
    init: Callable  # key -> (params, stats); stats: {} or collections such as batch_stats
    loss: Callable  # (params, stats, batch, key, train) -> (sums, stats); sums holds loss, count
    augment: Callable = lambda key, batch: batch  # of training batches, on the device
    monitor: str = "accuracy"  # which mean chooses the best epoch
    maximize: bool = True


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


def supervised(model, loss, example, normalize=lambda x: x, train_loss=None):
    """``(init, loss)`` of a ``Task``, from a Linen module called as ``module(x, train=...)``.

    ``example``: a batch that shows the shapes. ``train_loss``: another one for training. Both
    passes of a step are given the same ``key``.
    """

    def init(key):
        variables = model.init(key, normalize(example["x"]))
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def batch_loss(params, stats, batch, key, train):
        variables = {"params": params, **stats}
        x = normalize(batch["x"])
        outputs, new = model.apply(
            variables, x, train=train, mutable=list(stats) if train else [], rngs={"dropout": key}
        )
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        weight = batch.get("weight", jnp.ones(len(x), outputs.dtype))
        measure = train_loss or loss if train else loss
        return measure(outputs, batch["y"], weight), (new if train else stats)

    return init, batch_loss


def build(config: Config) -> Task:
    """The task that a config describes; raises before anything is written."""
    if config.task:
        return _of_the_user(config)
    loss = choose("loss", config.loss, LOSSES)
    augment = choose("augmentation", config.augmentation, AUGMENTATIONS)
    choose("model", config.model, models.MODELS)
    d = data.load(
        config.dataset,
        validation_fraction=config.validation_fraction,
        split_seed=config.split_seed,
        label_noise=config.label_noise,
        noise_kind=config.noise_kind,
        noise_seed=config.noise_seed,
        teacher_neurons=config.teacher_neurons,
        teacher_scale=config.teacher_scale,
        teacher_seed=config.teacher_seed,
    )
    train_loss = functools.partial(loss, smoothing=s) if (s := config.label_smoothing) else None
    classes = np.issubdtype(d.train["y"].dtype, np.integer)
    _check_fit(config, images=d.train["x"].ndim == 4, classes=classes)
    model = models.build(
        config.model,
        d.num_outputs,
        dtype=jnp.bfloat16 if config.half_precision else None,
        num_neurons=config.num_neurons,
        num_filters=config.num_filters,
        num_blocks=config.num_blocks,
        dropout=config.dropout,
    )
    example = {"x": d.train["x"][:1]}
    return Task(
        d.train,
        d.validation,
        d.test,
        *supervised(model, loss, example, d.normalize, train_loss),
        augment=lambda key, batch: {**batch, "x": augment(key, batch["x"])},
        monitor="accuracy" if classes else "loss",
        maximize=classes,
    )


def _check_fit(config: Config, images: bool, classes: bool):
    """Vectors do not go through convolutions, and numbers have no cross entropy."""
    for knob, fits, needed in (
        ("loss", classes or config.loss == "squared", "'squared'"),
        ("model", images or config.model == "MLP", "'MLP'"),
        ("augmentation", images or config.augmentation == "none", "'none'"),
    ):
        if not fits:
            raise ValueError(
                f"{knob}={getattr(config, knob)!r}: must be {needed} for dataset={config.dataset!r}"
            )


def _of_the_user(config: Config) -> Task:
    module, _, function = config.task.partition(":")
    law = f"task={config.task!r}: must be module:function, returning a samscale.tasks.Task"
    if "" not in sys.path:
        sys.path.insert(0, "")  # where the command is run
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        raise ValueError(f"{law} ({error})") from error
    if not callable(make):
        raise ValueError(f"{law}, not {type(make).__name__}")
    try:
        task = make(_Unswept(config))
    except Exception as error:  # of the user's code: whatever it is, in one sentence
        words = " ".join(str(error).split())
        raise ValueError(f"task={config.task!r}: {type(error).__name__}: {words}") from error
    if not isinstance(task, Task):
        raise ValueError(f"{law}, not {type(task).__name__}")
    for name in ("train", "validation", "test"):
        lengths = {key: len(array) for key, array in getattr(task, name).items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"task={config.task!r}: the arrays of {name} must have one length, not {lengths}"
            )
    return task


class _Unswept:
    """A config as a task may read it: runs that differ in what is swept share one task."""

    def __init__(self, config: Config):
        self._config = config

    def __getattr__(self, name):
        field = Config.__dataclass_fields__.get(name)
        if field is not None and field.metadata["swept"]:
            raise ValueError(
                f"config.{name} is not for a task to read: runs that differ in it share one task"
            )
        return getattr(self._config, name)
