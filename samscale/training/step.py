r"""Training as pure functions: ``(state, info)`` in, ``(state, info)`` out; no disk, no clock.

What changes the program (model, optimizer, batch size) is closed over. What changes only numbers
is an argument, ``Knobs``: seeds, radii, learning rates and decays share one compiled program and
may be mapped over with ``jax.vmap``.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from samscale import keys, pruning, sharpness
from samscale.config import Config
from samscale.tasks import Task, means


class State(NamedTuple):
    """All that a run carries along, and all that its next step depends on."""

    step: jax.Array  # () int32, optimizer steps behind us
    params: Any
    stats: Any  # {} or batch statistics, of clean passes
    opt_state: Any
    sharpness: Any  # of the sharpness-aware gradient
    mask: Any  # None: dense


class Knobs(NamedTuple):
    """Numbers of a run that do not change its program."""

    seed: Any
    rho: Any
    learning_rate: Any
    weight_decay: Any

    @classmethod
    def of(cls, config: Config) -> "Knobs":
        f32 = np.float32
        return cls(
            np.uint32(config.seed),
            f32(config.rho),
            f32(config.learning_rate),
            f32(config.weight_decay),
        )


def make_step(task: Task, make_gradient, make_optimizer, groups: int = 1):
    """``step(state, batch, knobs) -> (state, info)``; info: sums of the clean pass, gap, norm.

    ``make_gradient(value_and_grad_fn, rho)`` and ``make_optimizer(knobs)`` are constructors.
    """

    def step(state: State, batch, knobs: Knobs):
        batch = task.augment(keys.address(knobs.seed, keys.AUGMENT, state.step), batch)
        group_keys = jax.random.split(keys.address(knobs.seed, keys.DROPOUT, state.step), groups)

        def mean_loss(params, batch, group_keys):
            weights = pruning.apply(state.mask, params)
            sums, stats = task.loss(weights, state.stats, batch, group_keys[0], True)
            return means(sums)["loss"], (sums, stats)

        @jax.jit  # both passes, one trace of the model: XLA inlines it
        def value_and_grad(params, *args):
            (_, out), grads = jax.value_and_grad(mean_loss, has_aux=True)(params, *args)
            return out, grads

        one_pass = value_and_grad
        if any(w.ndim > 2 for w in jax.tree.leaves(state.params)):  # maps outgrow their kernels
            one_pass = _in_one_piece(value_and_grad, state.step >= 0)
        gradient = sharpness.grouped(
            make_gradient(one_pass, knobs.rho), groups, weight=_count, merge=_merge
        )
        (out, grads), carried, info = gradient.value_and_grad(
            state.params, state.sharpness, batch, group_keys
        )
        (sums, stats), (above, _) = out, info.out
        updates, opt_state = make_optimizer(knobs).update(grads, state.opt_state, state.params)
        params = pruning.apply(state.mask, optax.apply_updates(state.params, updates))
        report = {**sums, "gap": above["loss"] - sums["loss"], "grad_norm": sharpness.norm(grads)}
        state = State(state.step + 1, params, stats, opt_state, carried, state.mask)
        return state, report

    return step


def make_advance(step):
    """``count`` steps as one compiled loop, from row ``first`` of ``order``.

    ``count`` is traced: chunks of any length are one program, and give the same bits. Entry i of
    each array in infos belongs to the i-th step; entries from ``count`` on are zero.
    """
    step = jax.jit(step)  # traced once, here and in the loop: XLA inlines it

    def advance(state: State, examples, order, first, count, knobs: Knobs):
        def batch(i):
            return jax.tree.map(lambda a: a[order[first + i]], examples)

        def body(i, carry):
            state, infos = carry
            state, info = step(state, batch(i), knobs)
            return state, jax.tree.map(lambda buffer, x: buffer.at[i].set(x), infos, info)

        (_, like) = jax.eval_shape(step, state, jax.eval_shape(batch, 0), knobs)
        infos = jax.tree.map(lambda x: jnp.zeros((len(order), *x.shape), x.dtype), like)
        return jax.lax.fori_loop(0, count, body, (state, infos))

    return advance


def make_evaluate(task: Task):
    """``evaluate(params, stats, batches, total) -> total`` plus the sums over ``batches``.

    Leaves of ``batches`` are (num_batches, batch, ...). ``total=None`` begins at zero.
    """

    def evaluate(params, stats, batches, total=None):
        def sums(batch):
            return task.loss(params, stats, batch, jax.random.key(0), False)[0]

        if total is None:
            like = jax.eval_shape(sums, jax.tree.map(lambda a: a[0], batches))
            total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        add = lambda total, batch: (jax.tree.map(jnp.add, total, sums(batch)), None)
        return jax.lax.scan(add, total, batches)[0]

    return evaluate


def _in_one_piece(f, true):
    """``f`` inside a branch that is always taken, which XLA cannot know.

    On a CPU it would else schedule both passes as one and keep maps of the first during the second:
    for a ResNet-18, 38 MiB where a copy of the parameters takes 2.7. A branch costs some
    microseconds, more where the host decides: only for networks that repay it, only on CPUs.
    """
    if jax.default_backend() != "cpu":
        return f

    def piece(*args):
        like = jax.eval_shape(f, *args)
        zeros = lambda *args: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return jax.lax.cond(true, f, zeros, *args)

    return piece


def _count(out):
    sums, _ = out
    return sums["count"]


def _merge(outs):
    """Groups of a batch: their sums add, their batch statistics are averaged."""
    sums, stats = outs
    return jax.tree.map(lambda x: x.sum(0), sums), jax.tree.map(lambda x: x.mean(0), stats)
