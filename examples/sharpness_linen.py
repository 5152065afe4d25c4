"""SAM for Flax Linen: batch statistics of the clean pass, one dropout mask for both passes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from samscale import sharpness


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(32, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        return nn.Dense(1)(nn.Dropout(0.1, deterministic=False)(x))[:, 0]


def loss_fn(params, stats, x, y, key):
    variables = {"params": params, "batch_stats": stats}
    out, new = Net().apply(variables, x, mutable=["batch_stats"], rngs={"dropout": key})
    return jnp.mean((out - y) ** 2), new["batch_stats"]


sam = sharpness.sam(jax.value_and_grad(loss_fn, has_aux=True), rho=0.05)
optimizer = optax.adam(1e-2)


@jax.jit
def step(params, stats, state, opt_state, *batch):
    ((loss, stats), grads), state, _ = sam.value_and_grad(params, state, stats, *batch)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), stats, state, opt_state, loss


def main(steps=100):
    key = jax.random.key(0)
    x = jax.random.normal(key, (64, 8))
    y = jnp.sin(x.sum(axis=1))
    variables = Net().init({"params": key, "dropout": key}, x)
    params, stats = variables["params"], variables["batch_stats"]
    carried = params, stats, sam.init(params), optimizer.init(params)
    losses = []
    for i in range(steps):
        *carried, loss = step(*carried, x, y, jax.random.fold_in(key, i))
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
