"""Any method of the family on a small network, with whatever else it needs."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax

import soon
from samscale import sharpness

jit = functools.partial(jax.jit, compiler_options=soon.OPTIONS)
NAMES = sorted(sharpness.PRESETS)
ONE_PASS = ("random_sam", "momentum_sam", "bsam")  # none of whose passes is at w


def network(params, batch):
    return (residuals(params, batch) ** 2).mean()


def residuals(params, batch):
    x, y = batch
    hidden = jnp.tanh((x @ params["w"] + params["b"][None]) * params["norm"]["scale"][None])
    return hidden @ params["v"] - y


def losses(params, batch):
    return residuals(params, batch) ** 2


def network_at(seed=0, n=8, dtype=jnp.float32):
    key = jax.random.split(jax.random.key(seed), 5)
    draw = lambda k, *shape: jax.random.normal(k, shape, dtype)
    params = {"w": draw(key[0], 3, 4), "b": draw(key[1], 4), "v": draw(key[2], 4)}
    params["norm"] = {"scale": jnp.ones(4, dtype)}
    return params, (draw(key[3], n, 3), draw(key[4], n))


def defaults(name):
    """The choices that the preset's signature makes."""
    parameters = inspect.signature(sharpness.PRESETS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def make(name, value_and_grad_fn=None, rho=None, seed=1, **choices):
    """The preset with what it cannot do without, at its own radius unless told."""
    if value_and_grad_fn is None:
        value_and_grad_fn = jax.value_and_grad(network)
    preset = sharpness.PRESETS[name]
    needed = {"key": jax.random.key(seed), "num_examples": 100, "losses": losses}
    takes = inspect.signature(preset).parameters
    given = {word: value for word, value in needed.items() if word in takes}
    rho = defaults(name)["rho"] if rho is None else rho
    return preset(value_and_grad_fn, rho, **(given | choices))


def optimizer(name, learning_rate=0.02, momentum=0.9):
    """An optimizer that the method goes with."""
    own = {
        "bsam": [sharpness.scale_by_bsam()],
        "sassha": [sharpness.scale_by_sassha(epsilon=0.1)],
        "wsam": [optax.trace(momentum), sharpness.add_sharpness()],
    }
    chain = own.get(name, [optax.trace(momentum)])
    return optax.with_extra_args_support(optax.chain(*chain, optax.scale(-learning_rate)))


def stepper(name, gradient=None):
    """``step(state, batch) -> (state, (out, grads, info))`` and ``begin(params) -> state``."""
    gradient, base = gradient or make(name), optimizer(name)

    def begin(params):
        return params, gradient.init(params), base.init(params)

    def step(state, batch):
        params, sharp, opt_state = state
        (out, grads), sharp, info = gradient.value_and_grad(
            params, sharp, batch, opt_state=opt_state
        )
        updates, opt_state = base.update(grads, opt_state, params, **info.extra)
        return (optax.apply_updates(params, updates), sharp, opt_state), (out, grads, info)

    return begin, step


def close(a, b, rtol=2e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
