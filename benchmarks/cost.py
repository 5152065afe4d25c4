"""What SAM costs beside SGD, in time and memory; and whether seeds should be mapped or looped."""

import dataclasses

import jax
import jax.numpy as jnp

from benchmarks.mlp import MNIST
from benchmarks.timing import Row, best, epoch
from samscale.config import Config
from samscale.training.compiled import Compiled
from samscale.training.step import Knobs

RESNET = Config(dataset="fashion_mnist", model="ResNet18", num_filters=16, augmentation="crop_flip")
SEEDS = 5


def rows():
    yield from _beside_sgd(dataclasses.replace(MNIST, num_neurons=(300, 100)), 100)
    yield from _beside_sgd(dataclasses.replace(MNIST, num_neurons=(1200, 400)), 50)
    yield from _beside_sgd(RESNET, 2)
    for widths in ((75, 25), (300, 100), (1200, 400)):
        yield from _replicas(dataclasses.replace(MNIST, num_neurons=widths))
    digits = dataclasses.replace(MNIST, dataset="digits", batch_size=64)
    for widths in ((16, 8), (192, 96)):
        yield from _replicas(dataclasses.replace(digits, num_neurons=widths))


def _beside_sgd(config, count):
    configs = {o: dataclasses.replace(config, optimizer=o) for o in ("sgd", "sam")}
    machines = {o: Compiled(c) for o, c in configs.items()}
    seconds = best({o: epoch(machines[o], configs[o], count) for o in configs}, rounds=7)
    name = config.model + (f" {list(config.num_neurons)}" if config.model == "MLP" else " 16")
    yield Row(
        f"{name}: time of a SAM step / an SGD step",
        seconds["sam"] / seconds["sgd"],
        f"{1e3 * seconds['sam'] / count:.2f} ms against {1e3 * seconds['sgd'] / count:.2f} ms",
        at_most=2.1,
    )
    found = {o: memory(machines[o], configs[o]) for o in configs}
    (sgd, size), (sam, _) = found["sgd"], found["sam"]
    yield Row(
        f"{name}: temporary memory, (SAM - SGD) / parameters",
        (sam - sgd) / size,
        f"{sam / 2**20:.1f} MiB against {sgd / 2**20:.1f} MiB; parameters {size / 2**20:.1f} MiB",
        at_most=1.2,
    )


def memory(machine, config):
    knobs = Knobs.of(config)
    window = machine.feed(machine.order(knobs, 0), 0)
    state = machine.init(knobs, window.examples, window.order)
    arguments = (state, window.examples, window.order, 0, 1, knobs)
    analysis = machine.advance.jitted.lower(*arguments).compile().memory_analysis()
    size = sum(w.nbytes for w in jax.tree.leaves(state.params))
    return analysis.temp_size_in_bytes, size


def _replicas(config, count=100):
    """Five seeds as replicas of one program, against the five one after another."""
    machine = Compiled(config)
    each = [Knobs.of(dataclasses.replace(config, seed=seed)) for seed in range(SEEDS)]
    knobs = jax.tree.map(lambda *numbers: jnp.stack(numbers), *each)
    orders = jax.vmap(machine.program.order, (0, None))(knobs, 0)
    examples = machine.feed(orders[0], 0).examples
    init = jax.jit(jax.vmap(machine.program.init, (0, None, 0)))
    axes = (0, None, 0, None, None, 0)
    advance = jax.jit(jax.vmap(machine.program.advance, axes), donate_argnums=0)
    count = min(count, machine.program.steps_per_epoch)
    at = {"states": init(knobs, examples, orders)}

    def mapped():
        at["states"], infos = advance(at["states"], examples, orders, 0, count, knobs)
        jax.block_until_ready((at["states"], infos))

    one = epoch(machine, config, count)
    mapped()
    seconds = best({"mapped": mapped, "in turn": lambda: [one() for _ in each]}, rounds=7)
    yield Row(
        f"{config.dataset} MLP {list(config.num_neurons)}: {SEEDS} seeds in turn / as replicas",
        seconds["in turn"] / seconds["mapped"],
        f"{1e3 * seconds['in turn'] / count:.2f} ms against "
        f"{1e3 * seconds['mapped'] / count:.2f} ms for a step of all",
    )
