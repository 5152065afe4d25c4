"""A program with its data in place, ready to run: what runs share that differ only in numbers."""

import functools
import os

import jax

from samscale import cached, tasks
from samscale.config import Config
from samscale.training import environment, feed, kept, leaves, memory, program


class Compiled:
    """Jitted functions of ``Program``, and the splits of the task where they are needed."""

    def __init__(self, config: Config):
        self.task = task = tasks.build(config)
        self.program = p = program.build(config, task)
        self._name = functools.partial(kept.name, config, task)
        self.init = kept.Kept(p.init, self._name("init"))
        self.order = kept.Kept(p.order, self._name("order"))
        self.advance = kept.Kept(p.advance, self._name("advance"), donate=(0,))
        self.evaluate = kept.Kept(p.evaluate, self._name("evaluate"))
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
        self._replicated: Replicated | None = None
        self.splits = {"validation": batches(task.validation), "test": batches(task.test)}

    def totals(self, state):
        """Sums over ``validation`` and ``test``, on the host; an empty split is left out."""
        totals = {}
        for split, stacks in self.splits.items():
            total = None
            for stack in stacks:
                total = self.evaluate(state.params, state.stats, stack, total)
            totals[split] = total  # not waited for: the splits are evaluated back to back
        return jax.device_get({split: t for split, t in totals.items() if t is not None})

    def stack(self, trees):
        """What belongs to the runs of a loop, one tree each, as its functions take it."""
        (tree,) = trees
        return tree

    def row(self, tree, i):
        """What belongs to run ``i``."""
        return tree

    def replicated(self) -> "Replicated":
        """The same functions, mapped over a leading axis of runs; kept."""
        if self._replicated is None:
            self._replicated = Replicated(self)
        return self._replicated


class Replicated(Compiled):
    """``Compiled`` for several runs at once: their numbers, orders and states along axis 0."""

    def __init__(self, one: Compiled):
        p = one.program
        self.task, self.program, self.feed, self.splits = one.task, p, one.feed, one.splits
        name = lambda function: one._name(f"replicated {function}")
        self.init = kept.Kept(jax.vmap(p.init, (0, None, 0)), name("init"))
        self.order = kept.Kept(jax.vmap(p.order, (0, None)), name("order"))
        axes = (0, None, 0, None, None, 0)
        self.advance = kept.Kept(jax.vmap(p.advance, axes), name("advance"), donate=(0,))
        begin = jax.vmap(p.evaluate, (0, 0, None))
        add = jax.vmap(p.evaluate, (0, 0, None, 0))
        evaluate = lambda *at: begin(*at[:3]) if at[3] is None else add(*at)
        self.evaluate = kept.Kept(evaluate, name("evaluate"))

    def stack(self, trees):
        return leaves.stack(trees)

    def row(self, tree, i):
        return leaves.row(tree, i)


_COMPILED: dict[str, Compiled] = {}


def compiled(config: Config) -> Compiled:
    """The last program is kept: a study whose cells differ in seed and radius compiles once.

    A program holds on to the settings of JAX under which it was traced.
    """
    key = f"{config.program_id} {environment.settings()}"
    if key not in _COMPILED:
        _COMPILED.clear()
        memory.tidy()
        _COMPILED[key] = Compiled(config)
    return _COMPILED[key]


def keep_programs() -> None:
    """Keep compiled programs on disk, unless ``JAX_COMPILATION_CACHE_DIR`` says where.

    Neither place is used where other users may have written there: see ``cached``.
    """
    given = jax.config.jax_compilation_cache_dir
    folder = os.path.expanduser(given) if given else str(cached.root() / "compiled")
    if "://" in folder:  # a bucket, which has its own rights
        return
    # in this order: closing a folder does not undo what others wrote before
    if not cached.harmless(folder) or not (given or cached.private(folder)):
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    if not given:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small nets too
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
