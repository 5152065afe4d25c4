"""The compiled epoch of an MLP against its own matrix products, and against a loop of batches."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import Row, best, epoch, matmul
from samscale import sharpness
from samscale.config import Config
from samscale.training.compiled import Compiled

MNIST = Config(dataset="mnist", optimizer="sam")
DIGITS = Config(dataset="digits", batch_size=64, optimizer="sam")
PASSES = 2  # of SAM


def rows():
    for widths in ((300, 100), (1200, 400)):
        yield from _against_products(dataclasses.replace(MNIST, num_neurons=widths))
        yield from _against_batches(dataclasses.replace(MNIST, num_neurons=widths), at_least=1)
    yield from _against_batches(dataclasses.replace(DIGITS, num_neurons=(16, 16)), at_least=2)


def _against_products(config):
    """The share of an epoch that its matrix products would take, each timed at its own shape."""
    machine = Compiled(config)
    product, operations = matmul()
    sizes = (784, *config.num_neurons, 10)
    layers = list(pairwise(sizes))
    programs = {"epoch": epoch(machine, config), "matmul": product}
    for i, shape in enumerate(layers):
        programs[f"layer {i}"] = _products(config.batch_size, *shape, inputs=i > 0)
    seconds = best(programs, rounds=7)
    steps = machine.program.steps_per_epoch
    floor = sum(seconds[f"layer {i}"] for i in range(len(layers))) * PASSES * steps / REPEATS
    weights = sum((3 if i else 2) * a * b for i, (a, b) in enumerate(layers))
    done = 2 * PASSES * weights * config.batch_size * steps
    detail = (
        f"epoch {seconds['epoch']:.2f} s, {done / seconds['epoch'] / 1e9:.0f} GFLOP/s; "
        f"its products alone {done / floor / 1e9:.0f}; "
        f"2048x2048 {operations / seconds['matmul'] / 1e9:.0f}"
    )
    yield Row(
        f"MNIST MLP {list(config.num_neurons)}, SAM: rate of the epoch / rate of its products",
        floor / seconds["epoch"],
        detail,
        at_least=0.8,
    )


REPEATS = 64


def _products(batch, n_in, n_out, inputs):
    """The products of a layer and its gradients, ``REPEATS`` times in one program.

    Accumulated, so that none can be left out; operands differ, so that none can be shared.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (8, batch, n_in))
    g = jax.random.normal(keys[1], (8, batch, n_out))
    w = jax.random.normal(keys[2], (n_in, n_out))

    @jax.jit
    def program(x, g, w):
        def body(i, totals):
            xi, gi = x[i % 8], g[i % 8]
            found = [xi @ w, xi.T @ gi] + ([gi @ w.T] if inputs else [])
            return [t + f for t, f in zip(totals, found, strict=True)]

        like = [g[0], w] + ([x[0]] if inputs else [])
        return jax.lax.fori_loop(0, REPEATS, body, [jnp.zeros_like(a) for a in like])

    run = lambda: jax.block_until_ready(program(x, g, w))
    run()
    return run


def _against_batches(config, at_least):
    """An epoch against the loop that a user would write: a jitted step, a NumPy batch each."""
    machine = Compiled(config)
    task = machine.task
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, 0.9))
    data = {k: np.asarray(v) for k, v in task.train.items()}
    params, stats = task.init(jax.random.key(0))

    def loss(params, batch):
        sums, _ = task.loss(params, stats, batch, jax.random.key(0), True)
        return sums["loss"] / sums["count"]

    sam = sharpness.sam(jax.value_and_grad(loss), rho=0.05)

    @jax.jit
    def step(params, opt_state, batch):
        (value, grads), *_ = sam.value_and_grad(params, sam.init(params), batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    def loop():
        now, opt_state = params, optimizer.init(params)
        order = np.random.default_rng(0).permutation(len(data["y"]))
        per_epoch = machine.program.steps_per_epoch
        for rows in order[: per_epoch * config.batch_size].reshape(per_epoch, -1):
            batch = {k: a[rows] for k, a in data.items()}
            now, opt_state, value = step(now, opt_state, batch)
        jax.block_until_ready((now, value))

    loop()
    seconds = best({"epoch": epoch(machine, config), "loop": loop}, rounds=7)
    yield Row(
        f"{config.dataset} MLP {list(config.num_neurons)}, SAM: loop of NumPy batches / our epoch",
        seconds["loop"] / seconds["epoch"],
        f"{1e3 * seconds['loop']:.0f} ms against {1e3 * seconds['epoch']:.0f} ms an epoch",
        at_least=at_least,
    )
