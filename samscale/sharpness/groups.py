r"""A batch in parts: each with an ascent of its own (m-SAM), or all of them with one (less memory).

Both take ``split``, ``weight`` and ``merge``, which say what a batch and an ``out`` are:

- ``split(args, parts)``: the arguments with a new leading axis of length ``parts``; default: every
  leaf is split along its leading axis, which must be that of the examples;
- ``weight(out)``: what a part counts, such as its valid examples (of a masked loss); default: 1;
- ``merge(outs)``: of all parts, stacked along a leading axis, one ``out``; default: their mean, by
  ``weight`` (of random keys, the last).
"""

import jax
import jax.numpy as jnp

from samscale.sharpness import inputs, trees
from samscale.sharpness.gradient import Gradient, Info, plain
from samscale.sharpness.promotion import standard


def split_leading(args, parts: int):
    """Every leaf (n, ...) as (parts, n / parts, ...). ``ValueError`` where that does not go."""
    n = examples(args, "split=")
    if n % parts:
        raise ValueError(f"groups={parts}: must divide the {n} examples")
    return jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), args)


def examples(args, otherwise: str) -> int:
    """The length of the leading axis of every leaf.

    Raises ``ValueError`` where they do not have one, so that a key or statistics are never taken
    apart as if they were examples; ``otherwise`` names the argument that says how else.
    """
    shapes = {jnp.shape(a) for a in jax.tree.leaves(args)}
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"args: every array must have the same leading axis of examples, not {sorted(shapes)}; "
            f"{otherwise} says what to do with others"
        )
    ((n,),) = lengths
    return n


def merge_mean(outs, shares):
    """Of numbers the weighted mean over parts, to which those of weight 0 add nothing."""

    def mean(x):
        if not (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool):
            return x[-1]
        w = shares.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(w != 0, w * x, 0).sum(0) / shares.sum()

    return jax.tree.map(mean, outs)


def grouped(
    gradient: Gradient,
    groups: int,
    *,
    split=split_leading,
    weight=lambda out: 1.0,
    merge=None,
) -> Gradient:
    r"""m-sharpness: each of ``groups`` equal parts of the batch ascends alone (Foret et al., 2021).

    One group after another, in the memory of one; the number of devices plays no part. All begin
    with the same state, and leave the mean of theirs (of counts and masks, the first's). No more
    gradients than without. Raises ``ValueError`` for fewer than one group, or (by ``split``) a
    number that does not divide the examples.
    """
    groups = inputs.whole("groups", groups)
    if not hasattr(gradient, "value_and_grad"):
        raise ValueError(f"gradient={gradient!r}: must be a Gradient; plain(...) makes one")
    if groups == 1:
        return gradient

    @standard
    def value_and_grad(params, state, *args, known=None, opt_state=None, group=0):
        del known  # of the whole batch, while each group begins with its own

        def one(part_of_group, part):
            (out, grads), new, info = gradient.value_and_grad(
                params, state, *part, opt_state=opt_state, group=group * groups + part_of_group
            )
            averaged = (grads, info.clean_grads, info.ascent, info.extra, info.compared)
            share = weight(out)
            weighed = lambda x: jnp.where(share != 0, share * trees.wide(x), 0)  # 0 of NaN is 0
            summed = jax.tree.map(weighed, (*averaged, jnp.ones(())))
            return summed, averaged, (out, info.out, new, jnp.asarray(share))

        def body(total, numbered):
            summed, _, rest = one(*numbered)
            return jax.tree.map(jnp.add, total, summed), rest

        numbered = jnp.arange(groups), split(args, groups)
        total, like, _ = jax.eval_shape(one, *jax.tree.map(lambda a: a[0], numbered))
        start = trees.zeros(total)
        (*sums, count), found = jax.lax.scan(body, start, numbered)
        outs, perturbed_outs, states, shares = found
        merged = merge or (lambda outs: merge_mean(outs, shares))
        mean = lambda x, like: (x / count).astype(like.dtype)
        grads, *rest = jax.tree.map(mean, tuple(sums), like)
        info = Info(merged(perturbed_outs), *rest)
        return (merged(outs), grads), jax.tree.map(_average, states), info

    return Gradient(gradient.init, value_and_grad)


def accumulated(value_and_grad_fn, parts: int, *, split=split_leading, **how):
    r"""``value_and_grad_fn`` of the whole batch, computed part after part in the memory of one.

    Around it, ``sharpness_aware`` ascends once for the whole batch; ``grouped`` around that one
    ascends in each part. The first is SAM, the second m-SAM.
    """
    if parts == 1:
        return value_and_grad_fn
    gradient = plain(value_and_grad_fn)
    together = grouped(gradient, parts, split=split, **how)

    def whole(params, *args):
        result, _, _ = together.value_and_grad(params, gradient.init(params), *args)
        return result

    return whole


def _average(x):  # counters agree between groups; a mean would make them floats
    return x.mean(0) if jnp.issubdtype(x.dtype, jnp.inexact) else x[0]
