import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import numpy_family
from family import jit, losses, network, network_at
from samscale import sharpness
from samscale.sharpness import draws as drawing

STEPS, LEARNING_RATE, SEED = 100, 0.03, 1
CHOICES = {
    "sam": {"rho": 0.1},
    "usam": {"rho": 0.1},
    "m_sam": {"rho": 0.1, "groups": 4},
    "asam": {"rho": 0.2, "eta": 0.05},
    "asam_all": {"rho": 0.2},
    "layer_sam": {"rho": 0.05},
    "fisher_sam": {"rho": 0.1, "eta": 1.5},
    "random_sam": {"rho": 0.2},
    "momentum_sam": {"rho": 0.2},
    "multistep_sam": {"rho": 0.1, "steps": 3},
    "exact_sam": {"rho": 0.1},
    "sam_on": {"rho": 0.2},
    "ssam_fisher": {"rho": 0.2, "sparsity": 0.6, "refresh": 7, "samples": 6},
    "ssam_dynamic": {"rho": 0.2, "sparsity": 0.4, "drop_rate": 0.7, "refresh": 7, "total": 60},
    "friendly_sam": {"rho": 0.1, "sigma": 0.8, "decay": 0.7},
    "vasso": {"rho": 0.1, "theta": 0.3},
    "gsam": {"rho": 0.1, "alpha": 0.3},
    "wsam": {"rho": 0.1, "gamma": 0.6},
    "wsam_coupled": {"rho": 0.1, "gamma": 0.6},
    "looksam": {"rho": 0.1, "alpha": 0.5, "every": 3},
    "look_layer_sam": {"rho": 0.05, "alpha": 0.5, "every": 3},
    "periodic_sam": {"rho": 0.2, "every": 3},
    "step_size_sam": {"rho": 0.1},
    # where no leaf climbs, no loss rises and rounding chooses the examples: never at this beta
    "esam": {"rho": 0.1, "beta": 0.9, "gamma": 0.5},
    "bsam": {"rho": 0.05, "num_examples": 20},
    "sassha": {"rho": 0.1},
}
OTHER_NORMS = [
    ("sam", {"rho": 0.1, "ord": 1}),
    ("sam", {"rho": 0.1, "ord": 1.5}),
    ("sam", {"rho": 0.1, "ord": 3}),
    ("sam", {"rho": 0.02, "ord": np.inf}),
    ("asam", {"rho": 0.1, "ord": 4, "eta": 0.01}),
]
OWN = {
    "bsam": {"beta1": 0.8, "beta2": 0.95, "gamma": 0.1, "delta": 0.05, "initial_precision": 0.7},
    "sassha": {"beta1": 0.8, "beta2": 0.95, "epsilon": 0.1, "every": 3},
}


@functools.cache
def point():
    """Weights and a batch."""
    return jax.tree.map(np.asarray, network_at(dtype=jnp.float64))


def batches():
    rng = np.random.default_rng(0)
    return rng.normal(size=(STEPS, 8, 3)), rng.normal(size=(STEPS, 8))


def by_leaf(sampler, key):
    keys = jax.random.split(key, len(numpy_family.LEAVES))
    pairs = zip(keys, numpy_family.LEAVES.values(), strict=True)
    return jnp.concatenate([sampler(k, shape, float).ravel() for k, shape in pairs])


DRAWS = {
    "random_sam": functools.partial(by_leaf, drawing.signs),
    "bsam": functools.partial(by_leaf, jax.random.normal),
    "sassha": functools.partial(by_leaf, drawing.signs),
    "ssam_dynamic": lambda key: jax.random.uniform(key, (sum(numpy_family.SIZES),)),
    "esam": lambda key: jax.random.bernoulli(key, CHOICES["esam"]["beta"], (4,)),
}


def draws(name, group=0):
    """What the package draws in each step."""
    if name not in DRAWS:
        return [None] * STEPS
    key = jax.random.key(SEED)
    at = lambda t: DRAWS[name](jax.random.fold_in(jax.random.fold_in(key, t), group))
    return np.asarray(jax.vmap(at)(jnp.arange(STEPS, dtype=jnp.int32)))


def needed(name):
    needs = {"key": jax.random.key(SEED)} if name in DRAWS else {}
    return needs | ({"losses": losses} if name == "esam" else {})


def base(name, learning_rate, momentum):
    if name == "bsam":
        weight_decay = optax.add_decayed_weights(OWN["bsam"]["delta"])
        chain = [weight_decay, sharpness.scale_by_bsam(**OWN["bsam"])]
    elif name == "sassha":
        chain = [sharpness.scale_by_sassha(**OWN["sassha"])]
    else:
        chain = [optax.trace(momentum)] + [sharpness.add_sharpness()] * (name == "wsam")
    return optax.with_extra_args_support(optax.chain(*chain, optax.scale(-learning_rate)))


@functools.cache
def program(name, **choices):
    """The weights after every step; ``plain``: without an ascent. Numbers come as arguments, so
    that one program serves many laws."""
    more = needed(name) | ({"every": OWN["sassha"]["every"]} if name == "sassha" else {})
    build = sharpness.PRESETS.get(name, lambda vg, rho: sharpness.plain(vg))

    def run(rho, learning_rate, momentum, times, params, *data):
        loss = lambda params, batch: times * network(params, batch)
        gradient = build(jax.value_and_grad(loss), rho, **more, **choices)
        optimizer = base(name, learning_rate, momentum)

        def step(carry, batch):
            params, state, opt_state = carry
            (_, grads), state, info = gradient.value_and_grad(
                params, state, batch, opt_state=opt_state
            )
            updates, opt_state = optimizer.update(grads, opt_state, params, **info.extra)
            params = optax.apply_updates(params, updates)
            return (params, state, opt_state), ravel_pytree(params)[0]

        start = params, gradient.init(params), optimizer.init(params)
        return jax.lax.scan(step, start, data)[1]

    return jit(run)


def by_package(name, choices, momentum=0.9, times=1.0):
    """``times``: of the loss, with the learning rate as many times smaller."""
    choices = {"rho": 0.0} | choices
    numbers = choices.pop("rho"), LEARNING_RATE / times, momentum, times
    return np.asarray(program(name, **choices)(*numbers, point()[0], *batches()))


def by_numpy(name, choices):
    w = np.asarray(ravel_pytree(point()[0])[0])
    own = OWN.get(name, {})
    return numpy_family.walk(name, w, batches(), draws(name), LEARNING_RATE, choices, own)


def test_every_preset_has_a_transcription():
    assert set(numpy_family.METHODS) == set(CHOICES) == set(sharpness.PRESETS)


def test_the_transcribed_network_is_the_network_and_its_gradient_the_gradient():
    with jax.enable_x64(True):
        params, batch = point()
        flat, unravel = ravel_pytree(params)
        flat = flat.at[numpy_family.SLICES["scale"]].set(jnp.array([0.5, 1.5, -1.0, 2.0]))
        loss = lambda flat: network(unravel(flat), batch)
        w, data = np.asarray(flat), tuple(map(np.asarray, batch))
        each = losses(unravel(flat), batch)
        np.testing.assert_allclose(numpy_family.losses(w, data), each, rtol=1e-13)
        np.testing.assert_allclose(numpy_family.gradient(w, data), jax.grad(loss)(flat), rtol=1e-11)
        expected = jax.hessian(loss)(flat)
        np.testing.assert_allclose(numpy_family.hessian(w, data), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name, choices", [*CHOICES.items(), *OTHER_NORMS])
def test_a_hundred_steps_are_those_of_the_transcription(name, choices):
    with jax.enable_x64(True):
        ours, expected = by_package(name, choices), by_numpy(name, choices)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_each_group_of_a_batch_draws_numbers_of_its_own():
    with jax.enable_x64(True):
        value_and_grad = jax.value_and_grad(network)
        gradient = sharpness.random_sam(value_and_grad, 0.2, **needed("random_sam"))
        params, _ = point()
        state = gradient.init(params)
        x, y = (np.asarray(a[0]) for a in batches())
        grouped = sharpness.grouped(gradient, 2)
        (_, grads), _, _ = grouped.value_and_grad(params, state, (x, y))
        flat, w = ravel_pytree(grads)[0], np.asarray(ravel_pytree(params)[0])
        numbers = [draws("random_sam", group)[0] for group in (0, 1)]
    halves = [(x[:4], y[:4]), (x[4:], y[4:])]
    steps = [numpy_family.Step(w, half, 0, e, {}) for half, e in zip(halves, numbers, strict=True)]
    expected = np.mean([numpy_family.random_sam(step, 0.2) for step in steps], axis=0)
    np.testing.assert_allclose(flat, expected, rtol=1e-12)


def test_no_two_methods_take_the_same_way():
    """Else a transcription could stand for another, or a choice for none."""
    with jax.enable_x64(True):
        ends = np.array([by_numpy(*case)[-1] for case in [*CHOICES.items(), *OTHER_NORMS]])
    apart = np.abs(ends[:, None] - ends[None]).max(-1) + np.eye(len(ends))
    assert apart.min() > 1e-4
