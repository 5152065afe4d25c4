"""A program with its data in place, ready to run: what runs share that differ only in numbers."""

import functools
import os
from collections.abc import Callable

import jax

from samscale import cached, tasks
from samscale.config import Config
from samscale.training import environment, feed, kept, leaves, memory, program, traced


class Compiled:
    """Jitted functions of ``Program``, and the splits of the task where they are needed."""

    def __init__(self, config: Config):
        self.config = config  # of the runs it serves, the one it was built for
        self.task = task = tasks.build(config)
        self.program = p = program.build(config, task)
        self._name = functools.partial(kept.name, config, task)
        self.init = kept.Kept(p.init, self._name("init"))
        self.order = kept.Kept(p.order, self._name("order"))
        self.advance = kept.Kept(p.advance, self._name("advance"), donate=(0,))
        self.evaluate = kept.Kept(p.evaluate, self._name("evaluate"))
        self._replicated: Replicated | None = None

    # Data are put in place once a program runs: a study looks at all of its programs before.
    @functools.cached_property
    def feed(self):
        """``feed(order, first) -> Window`` of the training data."""
        if self.config.cache:
            return feed.resident(self.task.train)
        return feed.streamed(self.task.train, self.config.batch_size)

    @functools.cached_property
    def splits(self):
        """The batches that ``validation`` and ``test`` are evaluated in."""
        at = self.config.batch_size, self.config.steps_per_eval, self.config.cache
        splits = {"validation": self.task.validation, "test": self.task.test}
        return {name: feed.evaluation_batches(split, *at) for name, split in splits.items()}

    def shapes(self) -> traced.Shapes:
        """What its functions are given."""
        return traced.shapes(self.config, self.task, self.program)

    def check(self) -> None:
        """Raises ``ValueError`` where the program does not fit its data; traced once, for good."""
        check = functools.partial(traced.check, self.config, self.task, self.program)
        kept.once(self._name("shapes"), check)

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
        """The same functions for several runs at a time; kept."""
        if self._replicated is None:
            self._replicated = Replicated(self)
        return self._replicated


class Replicated(Compiled):
    """``Compiled`` for several runs at once: their numbers, orders and states along axis 0.

    The runs go one after another inside one program, each by the operations that it has alone, so
    its bits do not depend on how many others there are. Under ``jax.vmap`` they would: a product of
    eight runs at once adds in another order than one of five. What replicas save is the host's
    work between two programs, which for small networks takes longer than the programs.
    """

    def __init__(self, one: Compiled):
        p = one.program
        self.config, self.task, self.program = one.config, one.task, p
        self.feed, self.splits = one.feed, one.splits
        for name, function, own in (
            ("init", p.init, (0, 2)),
            ("order", p.order, (0,)),
            ("advance", p.advance, (0, 2, 5)),
            ("evaluate", p.evaluate, (0, 1, 3)),
        ):
            donate = (0,) if name == "advance" else ()
            named = one._name(f"replicated {name}")
            setattr(self, name, kept.Kept(_one_after_another(function, own), named, donate))

    def stack(self, trees):
        return leaves.stack(trees)

    def row(self, tree, i):
        return leaves.row(tree, i)


def _one_after_another(function: Callable, own: tuple[int, ...]) -> Callable:
    """``function`` of one run -> of several. ``own``: positions of the arguments that each run has
    for itself, along axis 0 (or that are None)."""

    def of_all(*args):
        def of_one(mine):
            return function(*(mine.get(i, shared) for i, shared in enumerate(args)))

        return jax.lax.map(of_one, {i: args[i] for i in own if args[i] is not None})

    return of_all


_COMPILED: dict[str, Compiled] = {}


def compiled(config: Config) -> Compiled:
    """The last program is kept: a study whose cells differ in seed and radius compiles once.

    A program holds on to the settings of JAX under which it was traced. Raises ``ValueError``
    where the program does not fit its data.
    """
    key = f"{config.program_id} {environment.settings()}"
    if key not in _COMPILED:
        _COMPILED.clear()
        memory.tidy()
        machine = Compiled(config)
        machine.check()
        _COMPILED[key] = machine
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
