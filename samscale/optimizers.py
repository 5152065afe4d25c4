r"""From numbers to an optax optimizer: what becomes of a gradient, sharpness-aware or not.

Learning rate and weight decay may be traced arrays, so that one compiled program serves a grid of
them. A schedule is a *shape*, multiplied by the learning rate; its argument counts optimizer steps.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import optax

from samscale.kernels import kernels


def _standard(f):
    """``f`` under JAX's standard promotion of dtypes: the numbers of schedules and of optax mix
    them, counts with floats, float32 with bfloat16."""

    @functools.wraps(f)
    def under_standard(*args, **kwargs):
        strict = jax.config.jax_numpy_dtype_promotion != "standard"
        with jax.numpy_dtype_promotion("standard") if strict else contextlib.nullcontext():
            return f(*args, **kwargs)

    return under_standard


def constant(num_steps):
    return optax.constant_schedule(1.0)


def step(num_steps):
    """Times 0.1 after 50 % and 75 % of the steps, as the paper's text has it."""
    return _drops(num_steps, (0.5, 0.75))


def step_mnist(num_steps):
    """Times 0.1 after 25 %, 50 % and 75 %, as the released program trained MNIST."""
    return _drops(num_steps, (0.25, 0.5, 0.75))


def cosine(num_steps):
    return optax.cosine_decay_schedule(1.0, max(num_steps, 1))


def linear(num_steps):
    return optax.linear_schedule(1.0, 0.0, max(num_steps, 1))


def inverse_sqrt(num_steps):
    r"""$1 / \sqrt{\max(t, 1)}$: a learning rate of 0.05 with 8,000 warmup steps peaks at 5.6e-4."""
    return lambda t: 1 / jnp.sqrt(jnp.maximum(t, 1.0))


def _drops(num_steps, fractions):
    # at the exact fraction: the released program rounds it down to a whole step
    return lambda t: 0.1 ** sum(jnp.where(t >= f * num_steps, 1.0, 0.0) for f in fractions)


SCHEDULES = {
    "constant": constant,
    "step": step,
    "step_mnist": step_mnist,
    "cosine": cosine,
    "linear": linear,
    "inverse_sqrt": inverse_sqrt,
}
COUNTS_FROM_START = {"step", "step_mnist", "inverse_sqrt"}  # the others begin after the warmup


def schedule(name, num_steps, warmup_steps=0):
    r"""The shape ``name`` over ``num_steps`` steps, risen to linearly within ``warmup_steps``.

    The decays of ``cosine`` and ``linear`` span what is left after the warmup; the steps of
    ``step`` count from the very start; ``inverse_sqrt`` rises to $1 / \sqrt{warmup}$, which it
    would have reached by then (Vaswani et al., 2017).
    """
    return _standard(_risen(name, num_steps, warmup_steps))


def _risen(name, num_steps, warmup_steps):
    if not warmup_steps:
        return SCHEDULES[name](num_steps)
    if name in COUNTS_FROM_START:
        after = SCHEDULES[name](num_steps)
        late = lambda t: after(jnp.maximum(t, warmup_steps))
        return lambda t: late(t) * jnp.minimum(1.0, t / warmup_steps)
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return optax.join_schedules([rise, SCHEDULES[name](num_steps - warmup_steps)], [warmup_steps])


def sgd(momentum=0.9, nesterov=False, **_):
    return optax.trace(decay=momentum, nesterov=nesterov) if momentum else optax.identity()


def adam(beta1=0.9, beta2=0.999, adam_epsilon=1e-8, **_):
    return optax.scale_by_adam(beta1, beta2, adam_epsilon)


BASES = {"sgd": sgd, "adam": adam, "adamw": adam}
DECOUPLED = {"adamw"}  # whose weight decay is not part of the gradient


def build(
    base,
    learning_rate,
    shape,
    *,
    weight_decay,
    mode="default",
    on="all",
    clip_norm=0.0,
    direction=None,
    beside=(),
    **kw,
):
    r"""clip -> (coupled decay) -> direction -> (decoupled decay) -> beside -> $-\eta_t$.

    ``coupled`` adds $\lambda w$ to the clipped gradient, so momentum and Adam see it;
    ``decoupled`` adds it to their output (Loshchilov and Hutter, 2019), so that a step shrinks the
    weights by $\eta_t \lambda$. ``kw`` holds the base's own numbers. ``direction``: instead of the
    base's; ``beside``: transformations of the update that neither sees.
    """
    coupled = mode == "coupled" or (mode == "default" and base not in DECOUPLED)
    decay = optax.add_decayed_weights(weight_decay, mask=kernels if on == "kernels" else None)
    direction = direction or BASES[base](**kw)
    whole = optax.chain(
        *([optax.clip_by_global_norm(clip_norm)] if clip_norm else []),
        *([decay, direction] if coupled else [direction, decay]),
        *beside,
        optax.scale_by_learning_rate(lambda t: learning_rate * shape(t)),
    )
    update = _standard(optax.with_extra_args_support(whole).update)
    return optax.GradientTransformationExtraArgs(whole.init, update)
