"""A task of a Flax NNX network with batch norm and dropout. See docs/own_task.md.

The parameters are an ``nnx.State``. What else the network carries (batch statistics, random keys
and their counts) is another, returned as ``stats``: saved and resumed, and not trained.
"""

import jax.numpy as jnp
import optax
from flax import nnx

from samscale import data, tasks

IMAGE, CLASSES = 64, 10


class Net(nnx.Module):
    def __init__(self, width, rngs):
        self.hidden = nnx.Linear(IMAGE, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x):  # (batch, 8, 8, 1) -> (batch, CLASSES)
        x = nnx.relu(self.norm(self.hidden(x.reshape(len(x), IMAGE))))
        return self.head(self.dropout(x))


def get_task(config):
    digits = data.load(
        "digits", validation_fraction=config.validation_fraction, split_seed=config.split_seed
    )
    make = lambda rngs: Net(config.num_neurons[0], rngs)
    graph, *_ = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def init(key):
        _, params, stats = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return params, stats

    def loss(params, stats, batch, key, train):
        model = nnx.merge(graph, params, stats, copy=True)  # both passes of a step begin alike
        model.set_attributes(deterministic=not train, use_running_average=not train)
        outputs = model(digits.normalize(batch["x"]))
        weight = batch.get("weight", jnp.ones(len(outputs)))
        _, _, new = nnx.split(model, nnx.Param, ...)
        return tasks.cross_entropy(outputs, batch["y"], weight), (new if train else stats)

    def outputs(params, stats, batch):  # as in evaluation: for curvature
        model = nnx.merge(graph, params, stats, copy=True)
        model.eval()
        return model(digits.normalize(batch["x"]))

    def criterion(outputs, batch):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"])

    splits = digits.train, digits.validation, digits.test
    return tasks.Task(*splits, init, loss, outputs=outputs, criterion=criterion)
