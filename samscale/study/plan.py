"""What a study will cost, before anything runs: traced, never compiled."""

import math
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from samscale.study import results
from samscale.study.grid import Study, cells
from samscale.training import compiled
from samscale.training.step import Knobs

LISTED = 3  # labels of a row, before they are counted
RATE_SIZE = 1024  # of the matrix product that tells the machine's rate
SHARE = 0.5  # of that rate that training reaches, roughly
COMPILE_SECONDS, RUN_SECONDS = 4.0, 0.05  # of a program, and of a run beside its steps
STEP_SECONDS = 2e-5  # of a gradient, however small the network


class Group(NamedTuple):
    """The cells of one program that are not done."""

    title: str
    cells: int
    done: int
    num_params: int
    gradients: float  # of a batch, of all cells that are left
    seconds: float  # estimated, of all cells that are left
    memory: float  # bytes of data, parameters, gradients and momentum: a lower bound


def plan(study: Study, workdir) -> list[Group]:
    """A row for each program. Time: from finished runs of the same program, else from its
    operations at half the rate of a matrix product, measured now. Raises ``ValueError``."""
    groups: dict[str, list] = {}
    for cell in cells(study):
        groups.setdefault(cell.config.program_id, []).append(cell)
    rate, rows = None, []
    for whole in groups.values():
        group = list({cell.config.run_id: cell for cell in whole}.values())
        found = [results.outcome(Path(workdir) / cell.config.run_id) for cell in group]
        done = [row["seconds"] for row in found if row["status"] == results.DONE]
        config = group[0].config
        machine = compiled.Compiled(config)
        steps, size, memory, operations = _look(machine, config)
        if done:
            each = float(np.mean(done))
        else:
            rate = rate or _rate()
            least = STEP_SECONDS * machine.program.gradients(steps)
            each = steps * operations / (SHARE * rate) + least + RUN_SECONDS
        left = sum(row["status"] == results.UNFINISHED for row in found)
        seconds = left * each + (COMPILE_SECONDS if left else 0)
        gradients = left * machine.program.gradients(steps)
        title, number = _title(study, whole), len(group)
        rows.append(Group(title, number, len(done), size, gradients, seconds, memory))
    return rows


def _title(study, group):
    """Where the cells of a program stand on the scientific axes."""
    axes = (study.methods, study.size, *study.panels)
    return " ".join(_listed(dict.fromkeys(cell.labels[a.name] for cell in group)) for a in axes)


def _listed(labels):
    """All of a few labels, else how many more there are; a name that they share comes once."""
    names = {label.rpartition(" ")[0] for label in labels}
    name = next(iter(names))
    shared = f"{name} " if len(labels) > 1 and len(names) == 1 and name.isidentifier() else ""
    words = [label.removeprefix(shared) for label in labels]
    if len(words) <= LISTED:
        return shared + ", ".join(words)
    return f"{shared}{words[0]} + {len(words) - 1} more"


def _look(machine, config):
    """Steps, parameters, bytes and operations a step of a program."""
    knobs = Knobs.of(config)
    order = jax.eval_shape(machine.program.order, knobs, 0)
    examples = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), dict(machine.task.train)
    )
    state = jax.eval_shape(machine.program.init, knobs, examples, order)
    lowered = jax.jit(machine.program.advance).lower(state, examples, order, 0, 1, knobs)
    cost = lowered.cost_analysis() or {}
    size = sum(int(np.prod(w.shape)) for w in jax.tree.leaves(state.params))
    data = sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(examples))
    held = sum(int(np.prod(w.shape)) * w.dtype.itemsize for w in jax.tree.leaves(state))
    steps = machine.program.num_steps
    passes = math.ceil(machine.program.gradients(steps) / steps)
    memory = float(data + held + 4 * size * passes)
    return steps, size, memory, float(cost.get("flops", 0.0))


def _rate():
    """Operations a second of a matrix product, the best of three."""
    a = jax.numpy.ones((RATE_SIZE, RATE_SIZE))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - begin)
    return 2 * RATE_SIZE**3 / min(times)
