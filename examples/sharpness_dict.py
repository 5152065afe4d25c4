"""SAM around plain dicts of arrays: an optax optimizer that asks for one more gradient."""

import jax
import jax.numpy as jnp
import optax

from samscale import sharpness


def loss_fn(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2)


def main(steps=100):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (64, 8))
    y = jnp.sin(x.sum(axis=1))
    params = {"w": jax.random.normal(keys[1], (8, 32)), "v": jax.random.normal(keys[2], (32,))}

    optimizer = sharpness.as_optax(optax.adam(1e-2), sharpness.perturbations.to_ball(rho=0.05))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        again = lambda w, i: jax.grad(loss_fn)(w, x, y)  # the i-th further gradient, at w
        updates, state = optimizer.update(grads, state, params, grad_fn=again)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for _ in range(steps):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
