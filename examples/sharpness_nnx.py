"""SAM for Flax NNX: split the parameters off, merge them in the loss."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from samscale import sharpness


def main(steps=100):
    x = jax.random.normal(jax.random.key(0), (64, 8))
    y = jnp.sin(x.sum(axis=1))
    rngs = nnx.Rngs(0)
    layers = nnx.Linear(8, 32, rngs=rngs), nnx.BatchNorm(32, rngs=rngs), nnx.relu
    model = nnx.Sequential(*layers, nnx.Dropout(0.1, rngs=rngs), nnx.Linear(32, 1, rngs=rngs))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_fn(params, rest):
        model = nnx.merge(graph, params, rest, copy=True)
        loss = jnp.mean((model(x)[:, 0] - y) ** 2)
        _, _, rest = nnx.split(model, nnx.Param, ...)  # batch statistics, dropout keys
        return loss, rest

    sam = sharpness.sam(jax.value_and_grad(loss_fn, has_aux=True), rho=0.05)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, rest, state, opt_state):
        ((loss, rest), grads), state, _ = sam.value_and_grad(params, state, rest)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), rest, state, opt_state, loss

    carried = params, rest, sam.init(params), optimizer.init(params)
    losses = []
    for _ in range(steps):
        *carried, loss = step(*carried)
        losses.append(float(loss))
    nnx.update(model, *carried[:2])  # the model has learned
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
