"""A task of an Equinox network with dropout. See docs/own_task.md.

The parameters are an ``eqx.Module`` whose leaves are arrays alone: functions, and numbers that are
not trained, are filtered out by ``eqx.partition`` and combined with the parameters in the loss.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from samscale import data, tasks

IMAGE, CLASSES = 64, 10


class Net(eqx.Module):
    hidden: eqx.nn.MLP
    norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, width, key):
        first, last = jax.random.split(key)
        self.hidden = eqx.nn.MLP(IMAGE, width, width, depth=1, activation=jax.nn.gelu, key=first)
        self.norm = eqx.nn.LayerNorm(width)
        self.dropout = eqx.nn.Dropout(0.1)
        self.head = eqx.nn.Linear(width, CLASSES, key=last)

    def __call__(self, x, key, inference):  # (8, 8, 1) -> (CLASSES,)
        x = jax.nn.relu(self.norm(self.hidden(x.ravel())))
        return self.head(self.dropout(x, key=key, inference=inference))


def get_task(config):
    digits = data.load(
        "digits", validation_fraction=config.validation_fraction, split_seed=config.split_seed
    )
    split = lambda key: eqx.partition(Net(config.num_neurons[0], key), eqx.is_inexact_array)
    _, static = split(jax.random.key(0))

    def init(key):
        params, _ = split(key)
        return params, {}

    def predict(params, batch, key, train):
        model, x = eqx.combine(params, static), digits.normalize(batch["x"])
        keys = jax.random.split(key, len(x))
        return jax.vmap(lambda x, key: model(x, key, inference=not train))(x, keys)

    def loss(params, stats, batch, key, train):
        outputs = predict(params, batch, key, train)
        weight = batch.get("weight", jnp.ones(len(outputs)))
        return tasks.cross_entropy(outputs, batch["y"], weight), stats

    def outputs(params, stats, batch):  # as in evaluation: for curvature
        return predict(params, batch, jax.random.key(0), train=False)

    def criterion(outputs, batch):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"])

    splits = digits.train, digits.validation, digits.test
    return tasks.Task(*splits, init, loss, outputs=outputs, criterion=criterion)
