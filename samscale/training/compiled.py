"""A program with its data in place, ready to run: what runs share that differ only in numbers."""

import functools
import os
import pathlib

import jax

from samscale import tasks
from samscale.config import Config
from samscale.training import feed, program
from samscale.training.summary import host_means


class Compiled:
    """Jitted functions of ``Program``, and the splits of the task where they are needed."""

    def __init__(self, config: Config):
        self.task = task = tasks.build(config)
        self.program = p = program.build(config, task)
        self.init = jax.jit(p.init)
        self.order = jax.jit(p.order)
        self.advance = jax.jit(p.advance, donate_argnums=0)
        self.evaluate = jax.jit(p.evaluate)
        if config.cache:
            self.feed = feed.resident(task.train)
        else:
            self.feed = feed.streamed(task.train, config.batch_size)
        batches = functools.partial(
            feed.evaluation_batches,
            batch_size=config.batch_size,
            num_batches=config.steps_per_eval,
            cache=config.cache,
        )
        self.splits = {"validation": batches(task.validation), "test": batches(task.test)}

    def means(self, state) -> dict[str, float]:
        """``validation_loss``, ``test_accuracy``, ...; a split without examples says nothing."""
        totals = {}
        for split, stacks in self.splits.items():
            total = None
            for stack in stacks:
                total = self.evaluate(state.params, state.stats, stack, total)
            totals[split] = total  # not waited for: the splits are evaluated back to back
        return {
            f"{split}_{name}": value
            for split, total in totals.items()
            if total is not None
            for name, value in host_means(jax.device_get(total)).items()
        }


_COMPILED: dict[str, Compiled] = {}


def compiled(config: Config) -> Compiled:
    """The last program is kept: a study whose cells differ in seed and radius compiles once."""
    key = config.program_id
    if key not in _COMPILED:
        _COMPILED.clear()
        _COMPILED[key] = Compiled(config)
    return _COMPILED[key]


def keep_programs() -> None:
    """Keep compiled programs on disk, unless ``JAX_COMPILATION_CACHE_DIR`` says where."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "samscale" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small nets too
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
