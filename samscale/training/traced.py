"""A program traced for shapes alone, before it runs: what does not fit is said at once."""

import contextlib
from typing import Any, NamedTuple

import jax
import numpy as np

from samscale.config import Config
from samscale.tasks import Task
from samscale.training import feed
from samscale.training.program import Program
from samscale.training.step import Knobs, State


class Shapes(NamedTuple):
    """What the functions of a ``Program`` are given: abstract arrays, of a shape and a type."""

    knobs: Knobs
    examples: Any
    order: Any
    state: State


def shapes(config: Config, task: Task, program: Program) -> Shapes:
    """Costs a trace of ``init``, and nothing else."""
    knobs = Knobs.of(config)
    order = jax.eval_shape(program.order, knobs, 0)
    examples, order = feed.shapes(task.train, order, config.cache)
    return Shapes(knobs, examples, order, jax.eval_shape(program.init, knobs, examples, order))


def check(config: Config, task: Task, program: Program) -> None:
    """Traces the start, a training step and an evaluation, as a run will.

    Raises ``ValueError`` where one of them cannot be, as for a network that asks for a random key
    of its own only in training. Costs as much as JAX takes to trace them, some tenths of a second.
    """
    with _worded(config, "initialization and pruning"):
        knobs, examples, order, state = shapes(config, task, program)
    with _worded(config, "a training step"):
        _, infos = jax.eval_shape(program.advance, state, examples, order, 0, 1, knobs)
        _check_sums({name: info.shape[1:] for name, info in infos.items()})
    for split in (task.validation, task.test):
        if len(next(iter(split.values()))):
            with _worded(config, "evaluation"):
                batches = _batches(split, config.batch_size)
                sums = jax.eval_shape(program.evaluate, state.params, state.stats, batches)
                _check_sums({name: total.shape for name, total in sums.items()})


def _batches(examples, batch_size):
    """A stack of one batch, as ``feed.evaluation_batches`` makes it."""
    arrays = {name: np.asarray(a) for name, a in examples.items()}
    shape = lambda a: jax.ShapeDtypeStruct((1, batch_size, *a.shape[1:]), a.dtype)
    weight = jax.ShapeDtypeStruct((1, batch_size), np.float32)
    return {name: shape(a) for name, a in arrays.items()} | {"weight": weight}


def _check_sums(found):
    for name, shape in found.items():
        if shape:
            raise ValueError(f"loss must return sums that are numbers; {name!r} has shape {shape}")


@contextlib.contextmanager
def _worded(config, where):
    """Whatever a user's functions raise, in one sentence; our own sentences as they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and not config.task:
            raise
        field = f"task={config.task!r}" if config.task else f"model={config.model!r}"
        words = " ".join(str(error).split())
        raise ValueError(f"{field}: {where}: {type(error).__name__}: {words}") from error
