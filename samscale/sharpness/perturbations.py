r"""From a gradient to the displacement of the second pass: optax transformations, to be *added*.

Chain them: what stands before ``to_ball`` bends the direction, what stands after it shortens the
step. A mask before leaves the whole radius to what it keeps (SAM-ON), a mask after does not (SSAM).

A radius ``rho`` is a number, an array (traced or not), a tree of them like the parameters, or a
schedule of the step, which ``sharpness_aware`` counts. Numbers that are negative or not finite
raise ``ValueError``.
"""

import numbers

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import inputs, trees
from samscale.sharpness.checks import check
from samscale.sharpness.draws import drawn, signs
from samscale.sharpness.promotion import standard


def stateless(rule) -> optax.GradientTransformationExtraArgs:
    """A perturbation from ``rule(g, params, **extra) -> e``."""

    @standard
    def update(g, state, params=None, **extra):
        return rule(g, params, **extra), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def to_ball(rho, ord=2, metric=None) -> optax.GradientTransformationExtraArgs:
    r"""The maximiser of $\langle g, e \rangle$ over $\|T^{-1} e\|_p \le \rho$, p = ``ord``.

    $$e = \rho\, T\, \frac{\mathrm{sign}(u)\, |u|^{q-1}}{\|u\|_q^{q-1}}, \quad u = T g,
    \quad \frac{1}{p} + \frac{1}{q} = 1$$

    so that $\langle g, e \rangle = \rho \|u\|_q$. p = 2: $\rho\, T u / \|u\|_2$; p = inf:
    $\rho\, T\, \mathrm{sign}(u)$; p = 1: the largest entry of |u| alone, ties sharing the radius.
    ``metric(params)`` is the diagonal of T (None: 1), a tree like the parameters or of factors that
    broadcast against them. Zero where g = 0. Raises ``ValueError`` for p < 1.
    """
    if not isinstance(ord, numbers.Real) or not ord >= 1:
        raise ValueError(f"ord={ord!r}: must be a number of at least 1, or infinity")

    def rule(g, params, **extra):
        t = metric(params) if metric else jax.tree.map(lambda x: jnp.ones((), x.dtype), g)
        u = jax.tree.map(lambda t, x: trees.wide(t) * trees.wide(x), t, g)
        length, direction = _steepest(u, ord)
        r = jax.tree.map(lambda r: r * length, radius(rho, extra.get("count")))
        e = jax.tree.map(lambda t, d: trees.wide(t) * d, t, direction)
        return jax.tree.map(lambda e, x: e.astype(x.dtype), trees.scale(r, e), g)

    return stateless(rule)


def onto_ball(rho, ord=2, metric=None):
    r"""``(e, params, count)`` -> the nearest point with $\|T^{-1} e\|_p \le \rho$.

    Nearest in the coordinates $T^{-1} e / \rho$, where the ball is round. Raises ``ValueError`` for
    a p other than 1, 2, inf.
    """
    balls = {
        1: lambda z: optax.projections.projection_l1_ball(z) if trees.size(z) else z,
        2: lambda z: trees.scale(1 / jnp.maximum(1, trees.norm(z)), z),
        jnp.inf: lambda z: jax.tree.map(lambda x: jnp.clip(x, -1, 1), z),
    }
    if ord not in balls:
        raise ValueError(f"ord={ord}: must be 1, 2 or inf where several steps climb")

    @standard
    def project(e, params, count):
        if ord != 2:  # of complex numbers neither is a projection of pairs
            inputs.real_parameters(e, f"several steps where ord={ord}")
        t = metric(params) if metric else jax.tree.map(lambda x: jnp.ones((), x.dtype), e)
        t = trees.scale(radius(rho, count), jax.tree.map(trees.wide, t))
        z = balls[ord](jax.tree.map(lambda x, t: trees.ratio(trees.wide(x), t), e, t))
        return jax.tree.map(lambda t, z, x: (t * z).astype(x.dtype), t, z, e)

    return project


def times(rho) -> optax.GradientTransformationExtraArgs:
    r"""$e = \rho\, g$: not normalised, the SAM of the paper's theorems."""
    return stateless(lambda g, params, **extra: trees.scale(radius(rho, extra.get("count")), g))


def per_layer(rho) -> optax.GradientTransformationExtraArgs:
    r"""$e_l = \rho\, \|w_l\|\, g_l / \|g_l\|$ for each leaf l (LayerSAM: Liu et al., CVPR 2022)."""

    def rule(g, params, **extra):
        r = radius(rho, extra.get("count"))
        lengths = jax.tree.map(lambda w, x: trees.ratio(trees.norm(w), trees.norm(x)), params, g)
        return trees.scale(r, trees.scale(lengths, g))

    return stateless(rule)


def to_fisher_ball(rho, eta=1.0) -> optax.GradientTransformationExtraArgs:
    r"""$e = \rho\, F^{-1} g / \sqrt{g^T F^{-1} g}$ with $F = 1 + \eta g^2$, entry by entry.

    The maximiser of $\langle g, e \rangle$ over $e^T F e \le \rho^2$ (Kim et al., ICML 2022).
    """

    check("eta", eta)

    def rule(g, params, **extra):
        del params
        inputs.real_parameters(g, "fisher_sam")
        size = jax.tree.map(lambda x: jnp.hypot(1.0, eta**0.5 * trees.wide(x)), g)  # no squares
        root = jax.tree.map(lambda x, s: trees.wide(x) / s, g, size)
        solved = jax.tree.map(jnp.divide, root, size)
        length = trees.ratio(1.0, trees.norm(root))
        r = jax.tree.map(lambda r: r * length, radius(rho, extra.get("count")))
        return jax.tree.map(lambda e, x: e.astype(x.dtype), trees.scale(r, solved), g)

    return stateless(rule)


def in_random_direction(rho, mask=None) -> optax.GradientTransformationExtraArgs:
    r"""$e = \rho\, \xi / \|\xi\|$, $\xi$ of random signs, 0 off ``mask``. Needs a ``key`` alone.

    $e$ has the mean and the covariance of a normal direction, and what it adds to the loss,
    $\frac{\rho^2}{2d} tr H$, has a smaller variance. A weight costs one random bit.
    """

    def rule(g, params, **extra):
        del params
        e = drawn(signs, _needed(extra, "key"), g)
        if mask is None:
            kept = sum(x.size for x in jax.tree.leaves(g))
        else:
            e = jax.tree.map(lambda m, x: jnp.where(m, x, 0), mask, e)
            count = lambda m, x: jnp.broadcast_to(m, x.shape).sum(dtype=float)
            kept = sum(jax.tree.leaves(jax.tree.map(count, mask, g)))
        factor = trees.ratio(1.0, jnp.sqrt(kept))
        r = jax.tree.map(lambda r: r * factor, radius(rho, extra.get("count")))
        return trees.scale(r, e)

    return stateless(rule)


def against_momentum(rho, momentum=None) -> optax.GradientTransformationExtraArgs:
    r"""$e = -\rho\, v / \|v\|$ with v the momentum buffer of the optimizer: needs no gradient.

    v is ``momentum(opt_state)``; default: the one ``trace`` (sgd) or ``mu`` (Adam) there is.
    Raises ``ValueError`` where there is not just one, of the shape of the parameters.
    """
    momentum = momentum or _buffer

    def rule(g, params, **extra):
        del g
        v = momentum(_needed(extra, "opt_state"))
        if jax.tree.structure(v) != jax.tree.structure(params):
            raise ValueError(
                "opt_state: must have one momentum buffer, as of sgd or Adam, for all parameters; "
                "momentum= says which"
            )
        e = _unit(v, jax.tree.map(jnp.negative, radius(rho, extra.get("count"))))
        return jax.tree.map(lambda e, w: e.astype(w.dtype), e, params)

    return stateless(rule)


def _buffer(opt_state):
    """None where there are none, or several."""
    own = lambda path, _: hasattr(path[-1], "tuple_name")  # a field of a state, not a parameter
    for name in ("trace", "mu"):
        if found := optax.tree.get_all_with_path(opt_state, name, own):
            return found[0][1] if len(found) == 1 else None
    return None


def only(where) -> optax.GradientTransformationExtraArgs:
    """Zero but where ``where`` is true: a tree of booleans (or of arrays of them), or a function
    from the parameters to one."""

    def rule(g, params, **extra):
        mask = where(params) if callable(where) else where
        return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), mask, g)

    return stateless(rule)


def keep_leaves(share) -> optax.GradientTransformationExtraArgs:
    r"""Each leaf with probability ``share``, times 1 / share; else zero. Needs a ``key``."""

    def rule(g, params, **extra):
        del params
        leaves, structure = jax.tree.flatten(g)
        kept = jax.random.bernoulli(_needed(extra, "key"), share, (len(leaves),))
        scaled = [
            trees.scale(jnp.where(k, 1 / share, 0), x) for k, x in zip(kept, leaves, strict=True)
        ]
        return structure.unflatten(scaled)

    return stateless(rule)


def radius(rho, count):
    """``rho`` at step ``count``. Raises ``ValueError`` for a schedule that nobody counts for, and
    for a number that is no radius."""
    for number in jax.tree.leaves(rho):
        if not callable(number):
            check("rho", number)
    if not callable(rho):
        return rho
    if count is None:
        raise ValueError("rho: a schedule needs count=, which sharpness_aware passes on")
    return rho(count)


def _needed(extra, name):
    if extra.get(name) is None:
        raise ValueError(f"{name}=None: this perturbation must be given one")
    return extra[name]


def _unit(g, rho):
    length = trees.norm(g)
    return trees.scale(jax.tree.map(lambda r: r * trees.ratio(1.0, length), rho), g)


def _steepest(u, p):
    """The maximiser over the unit ball of the p-norm, as a factor and a tree of wide arrays."""
    if p == 2:
        return trees.ratio(1.0, trees.norm(u)), u
    sign = lambda x: jnp.where(jnp.isinf(x), jnp.nan, jnp.sign(x))  # infinity is not swallowed
    if p == jnp.inf:
        return 1.0, jax.tree.map(sign, u)
    peak = trees.largest(u)
    if p == 1:
        at_peak = jax.tree.map(lambda x: (jnp.abs(x) == peak) & (peak > 0), u)
        ties = jnp.maximum(sum(hit.sum() for hit in jax.tree.leaves(at_peak)), 1)
        pick = lambda x, hit: jnp.where(hit | jnp.isnan(x), sign(x), 0)
        return 1 / ties, jax.tree.map(pick, u, at_peak)
    q = p / (p - 1)
    share = jax.tree.map(lambda x: jnp.abs(trees.ratio(x, peak)), u)  # the largest is 1
    total = sum((s**q).sum() for s in jax.tree.leaves(share))
    length = jnp.where(total > 0, total, 1) ** (1 / p)
    # at 0 the power's derivative may be infinite; that of a zero entry of the ascent counts as 0
    power = lambda s: jnp.where(s == 0, 0, jnp.where(s == 0, 1, s) ** (q - 1))
    return 1 / length, jax.tree.map(lambda x, s: jnp.sign(x) * power(s), u, share)
