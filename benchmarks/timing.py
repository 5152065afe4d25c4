"""What every benchmark needs: programs that take turns, and a row of the table."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Row(NamedTuple):
    """A ratio and what it should be; ``at_most`` or ``at_least`` may be None: reported only."""

    what: str
    value: float
    detail: str
    at_most: float | None = None
    at_least: float | None = None

    def verdict(self) -> str:
        if self.at_most is None and self.at_least is None:
            return ""
        low, high = self.at_least or float("-inf"), self.at_most or float("inf")
        aim = f"<= {self.at_most:g}" if self.at_least is None else f">= {self.at_least:g}"
        return f"{aim}: {'met' if low <= self.value <= high else 'MISSED'}"


def best(programs, rounds):
    """Seconds of the fastest of ``rounds``, one program after the other in each."""
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in times.items()}


def matmul(size=2048):
    """A product and how many operations it takes."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    return lambda: product(a, a).block_until_ready(), 2 * size**3


def epoch(machine, config, count=None):
    """A function that trains ``count`` steps (default: an epoch) of a compiled program.

    It gives the state, which the next call takes for its own.
    """
    from samscale.training.step import Knobs

    knobs = Knobs.of(config)
    window = machine.feed(machine.order(knobs, 0), 0)
    at = {"state": machine.init(knobs, window.examples, window.order)}
    count = count or machine.program.steps_per_epoch

    def run():
        at["state"], infos = machine.advance(
            at["state"], window.examples, window.order, 0, count, knobs
        )
        jax.block_until_ready((at["state"], infos))
        return at["state"]

    run()
    return run
