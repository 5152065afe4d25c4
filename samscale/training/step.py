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
from samscale.training import method


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
            f32(config.settled().rho),
            f32(config.learning_rate),
            f32(config.weight_decay),
        )


def make_step(task: Task, make_gradient, make_optimizer, *, micro_batches=1, per_example=False):
    """``step(state, batch, knobs) -> (state, info)``; info: sums of the clean pass, gap, norm.

    The gap L(w + e) - L(w) is a sum over the ``compared`` examples that both passes saw: none in
    steps without a second pass, or without a first.

    ``make_gradient(value_and_grad_fn, knobs, mask, losses)`` and ``make_optimizer(knobs)`` are
    constructors. ``per_example``: whether the former wants the loss of each example too.
    """

    def step(state: State, batch, knobs: Knobs):
        batch = task.augment(keys.address(knobs.seed, keys.AUGMENT, state.step), batch)
        key = keys.address(knobs.seed, keys.DROPOUT, state.step)

        def loss(params, batch, key):
            weights = pruning.apply(state.mask, params)
            return task.loss(weights, state.stats, batch, key, True)

        def mean_loss(params, weight, batch, key):
            batch = batch if weight is None else {**batch, "weight": weight}
            sums, stats = loss(params, batch, key)
            return means(sums)["loss"], (sums, stats)

        @jax.jit  # both passes, one trace of the model: XLA inlines it
        def value_and_grad(params, batch, key):
            weight = _weight(batch) if per_example else None
            wanted = (0, 1) if per_example else 0
            (mean, (sums, stats)), grads = jax.value_and_grad(mean_loss, wanted, has_aux=True)(
                params, weight, batch, key
            )
            losses = None
            if (
                per_example
            ):  # of a mean of losses, the derivative by an example's weight tells its own
                grads, slope = grads
                losses = mean + slope * sums["count"]
            return (sums, stats, losses), grads

        def losses(params, batch, key):
            """Of each example: a forward pass, and the derivative of a sum by its weights."""
            total = lambda weight: loss(params, {**batch, "weight": weight}, key)[0]["loss"]
            return jax.grad(total)(_weight(batch))

        one_pass = value_and_grad
        if any(w.ndim > 2 for w in jax.tree.leaves(state.params)):  # maps outgrow their kernels
            one_pass = _in_one_piece(value_and_grad, state.step >= 0)
        one_pass = method.accumulated(one_pass, micro_batches)
        gradient = make_gradient(one_pass, knobs, state.mask, losses)
        (out, grads), carried, info = gradient.value_and_grad(
            state.params, state.sharpness, batch, key, opt_state=state.opt_state
        )
        (sums, stats, _), above = out, info.out[0]
        updates, opt_state = make_optimizer(knobs).update(
            grads, state.opt_state, state.params, **info.extra
        )
        # of 16-bit parameters, too: products with the knobs, which are float32, would widen it
        opt_state = jax.tree.map(_in_dtype_of, state.opt_state, opt_state)
        params = pruning.apply(state.mask, optax.apply_updates(state.params, updates))
        count = jnp.where(info.compared, sums["count"], 0)
        gap = jnp.where(info.compared, means(above)["loss"] - means(sums)["loss"], 0) * count
        norm = sharpness.norm(grads)
        report = {**sums, "gap": gap, "compared": count, "grad_norm": norm}
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


def _in_dtype_of(old, new):
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def _weight(batch):
    """What each example counts."""
    return batch.get("weight", jnp.ones(len(next(iter(batch.values())))))
