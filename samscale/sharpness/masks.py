r"""Sparse ascents (SSAM: Mi et al., NeurIPS 2022): a mask of weights, renewed now and then.

Perturbations, to be chained *after* ``to_ball``: the step is shortened by what the mask removes.
They save no time: the second pass computes every gradient. State: a boolean a weight.
"""

import math

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import trees
from samscale.sharpness.checks import check
from samscale.sharpness.groups import split_leading
from samscale.sharpness.promotion import standard


def fisher_mask(sparsity=0.5, refresh=100, samples=128, split=split_leading):
    r"""Keep the ``round((1 - sparsity) N)`` weights of largest $\sum_i (\partial L_i)^2$.

    The sum runs over the first ``samples`` examples i of the batch of every ``refresh``-th step,
    beginning with the first; ``split(args, n)`` takes the batch apart. (The official code draws
    them from the whole training set, once an epoch.) Such a step costs ``samples`` gradients of one
    example more; all count where a batch, or a group of it, has fewer. Ties fall by index.
    """

    def renew(e, mask, params, *, args, value_and_grad_fn, **_):
        del mask
        parts = split(args, _examples(args))

        def add(total, example):
            _, g = value_and_grad_fn(params, *example)
            return jax.tree.map(lambda t, x: t + trees.wide(x) ** 2, total, g), None

        start = jax.tree.map(lambda x: jnp.zeros(x.shape, trees.wide(x).dtype), e)
        first = jax.tree.map(lambda a: a[:samples], parts)
        scores, structure = _flat(jax.lax.scan(add, start, first)[0])
        return structure(_top(scores, round((1 - sparsity) * scores.size)))

    if samples < 1:
        raise ValueError(f"samples={samples}: must be at least 1")
    return _masked(sparsity, refresh, renew)


def dynamic_mask(sparsity=0.5, drop_rate=0.5, refresh=100, total=10_000):
    r"""Keep ``N - ceil(sparsity N)`` weights: at first random ones; every ``refresh`` steps those
    of smallest |e| among them are dropped for as many random others.

    Dropped is the share ``drop_rate`` $(1 + \cos(\pi t / T)) / 2$ at step t of T = ``total``.
    """

    def renew(e, mask, params, *, count, key, **_):
        del params
        scores, structure = _flat(jax.tree.map(jnp.abs, e))
        kept, _ = _flat(mask)
        chance = jax.random.uniform(key, scores.shape)
        live = scores.size - math.ceil(sparsity * scores.size)
        rate = drop_rate * (1 + jnp.cos(jnp.pi * jnp.minimum(count / total, 1))) / 2
        drop = jnp.minimum((rate * live).astype(jnp.int32), scores.size - live)
        stays = _top(jnp.where(kept, scores, -1), live - drop)
        grown = _top(jnp.where(kept, -1, chance), drop)
        return structure(jnp.where(count == 0, _top(chance, live), stays | grown))

    return _masked(sparsity, refresh, renew)


def _masked(sparsity, refresh, renew):
    """Renewed in the first step that climbs of every ``refresh`` steps."""
    check("sparsity", sparsity, below=1)
    if refresh < 1:
        raise ValueError(f"refresh={refresh}: must be at least 1")

    def init(params):
        return jax.tree.map(lambda w: jnp.zeros(w.shape, bool), params)

    @standard
    def update(e, mask, params=None, *, count, every=1, **extra):
        fresh = lambda: renew(e, mask, params, count=count, **extra)
        mask = jax.lax.cond(count % refresh < every, fresh, lambda: mask)
        return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), mask, e), mask

    return optax.GradientTransformationExtraArgs(init, update)


def _top(scores, k):
    """True at the k largest; k may be traced."""
    rank = jnp.argsort(jnp.argsort(-scores, stable=True), stable=True)
    return rank < k


def _flat(tree):
    """All entries in one array, and the way back."""
    leaves, structure = jax.tree.flatten(tree)
    ends = [sum(x.size for x in leaves[: i + 1]) for i in range(len(leaves) - 1)]

    def back(flat):
        parts = jnp.split(flat, ends) if leaves else []
        return structure.unflatten(p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True))

    return jnp.concatenate([x.ravel() for x in leaves] or [jnp.zeros(0)]), back


def _examples(args):
    return len(jax.tree.leaves(args)[0])
