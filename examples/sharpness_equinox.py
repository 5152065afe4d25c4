"""SAM for Equinox: partition the model, differentiate its arrays, combine it in the loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from samscale import sharpness


def main(steps=100):
    x = jax.random.normal(jax.random.key(0), (64, 8))
    y = jnp.sin(x.sum(axis=1))
    model = eqx.nn.MLP(8, "scalar", width_size=32, depth=1, key=jax.random.key(1))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss_fn(params, x, y):
        model = eqx.combine(params, static)
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    sam = sharpness.sam(jax.value_and_grad(loss_fn), rho=0.05)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state, opt_state):
        (loss, grads), state, _ = sam.value_and_grad(params, state, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(params, updates), state, opt_state, loss

    carried = params, sam.init(params), optimizer.init(params)
    losses = []
    for _ in range(steps):
        *carried, loss = step(*carried)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
