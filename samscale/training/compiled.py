"""A program with its data in place, ready to run: what runs share that differ only in numbers."""

import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from samscale import cached, tasks
from samscale.config import Config
from samscale.training import environment, feed, kept, leaves, memory, program, traced

LANES = 8  # runs of a small network that are trained side by side
WORK = 1e7  # parameters x batch up to which the host's work between programs counts
SIZE = 1e6  # parameters up to which memory has room for so many states


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

    @property
    def memory(self) -> int:
        """Bytes that steps need, a run."""
        return self.advance.memory

    def stack(self, trees):
        """What belongs to the runs of a loop, one tree each, as its functions take it."""
        (tree,) = trees
        return tree

    def row(self, tree, i):
        """What belongs to run ``i``."""
        return tree

    @functools.cached_property
    def lanes(self) -> int:
        """How many runs train side by side: ``LANES`` of a small network, 1 of others.

        The config and its data decide, and nothing else: not the memory that is free, nor how many
        runs are left. So a run is always trained by the same program.
        """
        params, _ = jax.eval_shape(self.task.init, jax.random.key(0))
        leaves = jax.tree.leaves(params)
        size = sum(leaf.size for leaf in leaves)
        flat = all(leaf.ndim < 3 for leaf in leaves)  # convolutions take long in any case
        small = flat and size <= SIZE and size * self.config.batch_size <= WORK
        return LANES if small and self.config.cache else 1

    def of(self, number: int) -> "Compiled":
        """The same functions for ``number`` runs, at most ``lanes``."""
        return self if self.lanes == 1 else SideBySide(self, number)

    @functools.cached_property
    def in_turn(self) -> dict[str, kept.Kept]:
        """The functions for as many runs as their first argument says: see ``SideBySide``."""
        p = self.program
        functions = {
            "init": _in_turn(p.init, own=(0, 2)),
            "order": _in_turn(p.order, own=(0,)),
            "advance": _in_turn(p.advance, own=(0, 2, 5)),
            "evaluate": _in_turn(p.evaluate, own=(0, 1, 3)),
        }
        donated = {"advance": (1,)}
        return {
            name: kept.Kept(function, self._name(f"{name} in turn"), donated.get(name, ()))
            for name, function in functions.items()
        }


class SideBySide(Compiled):
    """``Compiled`` for several runs: numbers, orders and states along axis 0, of ``LANES`` places.

    One program serves any number of runs, from 1 on. It computes one after another, each by the
    same instructions, so neither how many there are nor which changes a bit. Under ``jax.vmap`` it
    would: a product of eight runs at once adds in another order than one of five. What is saved is
    the host's work between two programs, which for small networks takes longer than the programs.
    """

    def __init__(self, one: Compiled, number: int):
        self.config, self.task, self.program = one.config, one.task, one.program
        self.feed, self.splits = one.feed, one.splits
        self.in_turn = one.in_turn
        for name, function in one.in_turn.items():
            setattr(self, name, functools.partial(function, np.int32(number)))

    @property
    def memory(self) -> int:
        """A place's share, however many are taken: it does not depend on a run's neighbours."""
        return self.in_turn["advance"].memory // LANES

    def stack(self, trees):
        places = [*trees, *trees[:1] * (LANES - len(trees))]  # those behind are not looked at
        return leaves.stack(places)

    def row(self, tree, i):
        return leaves.row(tree, i)


def _in_turn(function: Callable, own: tuple[int, ...]) -> Callable:
    """``function`` of one run -> of the first ``number`` of ``LANES`` runs, one after another.

    ``own``: positions of the arguments that each run has for itself, along axis 0 (or are None).
    """

    function = jax.jit(function)  # traced once, for its shapes and in the loop: XLA inlines it

    def of_all(number, *args):
        def of_one(lane):
            its = functools.partial(jax.lax.dynamic_index_in_dim, index=lane, keepdims=False)
            mine = {i: jax.tree.map(its, args[i]) for i in own}
            return function(*(mine.get(i, shared) for i, shared in enumerate(args)))

        def place(lane, found):
            return jax.tree.map(lambda all, one: all.at[lane].set(one), found, of_one(lane))

        found = jax.tree.map(_empty, jax.eval_shape(of_one, 0))
        return jax.lax.fori_loop(0, number, place, found)

    return of_all


def _empty(like):
    return jnp.empty((LANES, *like.shape), like.dtype)


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
