"""In other people's loops: optax's wrappers, and the examples."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import family
from samscale import sharpness
from samscale.sharpness import averages
from samscale.sharpness.perturbations import against_momentum, only, to_ball

GRAD = jax.jit(jax.grad(family.network))
RHO = 0.3


def again(batch):
    return lambda params, i: GRAD(params, batch)


def descend(optimizer, batches, params):
    """The parameters after each step with an optimizer in the manner of ``as_optax``."""

    @family.jit
    def step(params, state, batch):
        grads = GRAD(params, batch)
        updates, state = optimizer.update(grads, state, params, grad_fn=again(batch))
        return optax.apply_updates(params, updates), state

    state, path = optimizer.init(params), []
    for batch in batches:
        params, state = step(params, state, batch)
        path.append(params)
    return path


def batches(n, dtype=jnp.float32):
    return [family.network_at(seed, dtype=dtype)[1] for seed in range(n)]


def in_parts(batch, parts):
    split = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), batch)
    return [jax.tree.map(lambda a, i=i: a[i], split) for i in range(parts)]


def by_hand(batch, rho=RHO):
    """SAM's gradient at the parameters that ``family.network_at`` begins with."""
    params, _ = family.network_at(dtype=batch[0].dtype)
    gradient = sharpness.sam(jax.value_and_grad(family.network), rho)
    return jax.jit(gradient.value_and_grad)(params, gradient.init(params), batch)[0][1]


def one_update(optimizer, batch, grads=None, grad_fn=None):
    params, _ = family.network_at()
    grads = GRAD(params, batch) if grads is None else grads
    update = functools.partial(optimizer.update, grad_fn=grad_fn or again(batch))
    return family.jit(update)(grads, optimizer.init(params), params)


@pytest.mark.parametrize("name", ["dict", "linen", "nnx", "equinox"])
def test_the_loss_of_an_example_falls(name):
    if name == "equinox":
        pytest.importorskip("equinox")
    losses = importlib.import_module(f"examples.sharpness_{name}").main(steps=40)
    assert len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]


def test_linen_keeps_the_statistics_of_the_clean_pass_and_drops_the_same_units_in_both():
    from examples import sharpness_linen as example

    x, y = jax.random.normal(jax.random.key(1), (16, 8)), jnp.ones(16)
    init, first, other = jax.random.split(jax.random.key(2), 3)
    variables = example.Net().init({"params": init, "dropout": init}, x)
    params, stats = variables["params"], variables["batch_stats"]
    begin = params, stats, example.sam.init(params), example.optimizer.init(params)
    stepped, kept, *_ = example.step(*begin, x, y, first)

    grad = jax.jit(jax.grad(example.loss_fn, has_aux=True))
    clean, expected = grad(params, stats, x, y, first)
    family.close(kept, expected)
    above = optax.tree.add_scale(params, 0.05 / optax.tree.norm(clean), clean)

    def after(key):
        updates, _ = example.optimizer.update(grad(above, stats, x, y, key)[0], begin[3], params)
        return optax.apply_updates(params, updates)

    family.close(stepped, after(first))
    with pytest.raises(AssertionError):
        family.close(stepped, after(other))
    with pytest.raises(AssertionError):
        family.close(kept, grad(above, stats, x, y, first)[1])


@pytest.mark.parametrize("name", ["sam", "friendly_sam", "gsam", "looksam"])
def test_as_optax_is_sharpness_aware_before_the_optimizer(name):
    perturbation = {"friendly_sam": optax.chain(averages.drop_mean(), to_ball(RHO))}
    how = {
        "gsam": {"combine": sharpness.combine.gsam(0.4)},
        "looksam": {"every": 5, "reuse": sharpness.combine.looksam(0.7)},
    }
    base, chosen = family.optimizer(name), perturbation.get(name, to_ball(RHO))
    wrapped = sharpness.as_optax(base, chosen, **how.get(name, {}))
    params, _ = family.network_at()
    path = descend(wrapped, batches(6), params)
    begin, step = family.stepper(name, family.make(name, rho=RHO))
    state, step = begin(params), jax.jit(step)
    for batch, expected in zip(batches(6), path, strict=True):
        state, _ = step(state, batch)
        family.close(state[0], expected)


@pytest.mark.parametrize("period", [2, 4])
def test_as_optax_is_the_opaque_sam_of_optax_where_gradients_are_not_zero(period):
    climber = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(optax.adam(0.01), climber, sync_period=period, opaque_mode=True)
    ours = sharpness.as_optax(optax.adam(0.01), to_ball(0.05), steps=period - 1)
    with jax.enable_x64(True):
        params, _ = family.network_at(dtype=jnp.float64)
        run = lambda optimizer: descend(optimizer, batches(8, jnp.float64), params)
        for a, b in zip(run(ours), run(theirs), strict=True):
            family.close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "steps, how", [(1, {}), (3, {}), (3, {"every": 2}), (1, {"through": True})]
)
def test_the_further_gradients_of_a_step_are_counted_from_zero(steps, how):
    params, batch = family.network_at()
    asked = []

    def grad_fn(params, i):
        asked.append(i)
        return GRAD(params, batch)

    optimizer = sharpness.as_optax(optax.sgd(0.1), to_ball(RHO), steps=steps, **how)
    update = functools.partial(optimizer.update, grad_fn=grad_fn)
    jax.eval_shape(update, params, optimizer.init(params), params)
    assert asked == list(range(steps))


def test_a_clip_before_it_bends_nothing_and_one_inside_shortens_what_is_descended():
    _, batch = family.network_at()
    clip, sgd = optax.clip_by_global_norm(0.01), optax.sgd(1.0)
    before, _ = one_update(optax.chain(clip, sharpness.as_optax(sgd, to_ball(RHO))), batch)
    inside, _ = one_update(sharpness.as_optax(optax.chain(clip, sgd), to_ball(RHO)), batch)
    sharp = jax.tree.map(jnp.negative, by_hand(batch))
    family.close(before, sharp)
    family.close(inside, jax.tree.map(lambda u: 0.01 * u / optax.tree.norm(sharp), sharp))
    assert optax.tree.norm(before) > 1


def test_in_multi_steps_the_ascent_is_that_of_the_big_batch():
    params, batch = family.network_at()
    optimizer = optax.MultiSteps(sharpness.as_optax(optax.sgd(1.0), to_ball(RHO)), 4)
    state = optimizer.init(params)
    for i, part in enumerate(in_parts(batch, 4)):
        grads = GRAD(params, part)
        updates, state = optimizer.update(grads, state, params, grad_fn=again(batch))
        assert (optax.tree.norm(updates) > 0) == (i == 3)
    family.close(updates, jax.tree.map(jnp.negative, by_hand(batch)))


def test_multi_steps_around_the_optimizer_alone_ascend_in_each_micro_batch():
    params, batch = family.network_at()
    gradient = sharpness.sam(jax.value_and_grad(family.network), RHO)
    optimizer = optax.MultiSteps(optax.sgd(1.0), 4)
    state, sharp = optimizer.init(params), gradient.init(params)
    for part in in_parts(batch, 4):
        (_, grads), sharp, _ = gradient.value_and_grad(params, sharp, part)
        updates, state = optimizer.update(grads, state, params)
    together = sharpness.grouped(gradient, 4)
    (_, expected), _, _ = together.value_and_grad(params, together.init(params), batch)
    family.close(updates, jax.tree.map(jnp.negative, expected))


def test_a_new_radius_of_inject_hyperparams_does_not_retrace():
    with jax.enable_x64(True):
        params, batch = family.network_at(dtype=jnp.float64)
        sam = lambda rho: sharpness.as_optax(optax.sgd(1.0), to_ball(rho))
        optimizer = optax.inject_hyperparams(sam)(rho=0.05)
        state = optimizer.init(params)
        update = jax.jit(lambda state: optimizer.update(
            GRAD(params, batch), state, params, grad_fn=again(batch)))  # fmt: skip
        for rho in (0.05, 0.3, 1.0):
            state.hyperparams["rho"] = jnp.asarray(rho)
            updates, state = update(state)
            family.close(updates, jax.tree.map(jnp.negative, by_hand(batch, rho)))
        assert update._cache_size() == 1


def test_apply_if_finite_around_it_sees_the_clean_gradient_and_inside_it_the_perturbed_one():
    params, batch = family.network_at()
    fine = GRAD(params, batch)
    broken = jax.tree.map(lambda g: g * jnp.nan, fine)
    finite = functools.partial(optax.apply_if_finite, max_consecutive_errors=3)
    ball, sgd = to_ball(RHO), optax.sgd(1.0)
    around, inside = finite(sharpness.as_optax(sgd, ball)), sharpness.as_optax(finite(sgd), ball)
    for optimizer, grads, grad_fn in (
        (around, broken, again(batch)),
        (inside, broken, again(batch)),
        (inside, fine, lambda w, i: broken),
    ):
        updates, state = one_update(optimizer, batch, grads, grad_fn)
        family.equal(updates, jax.tree.map(jnp.zeros_like, params))
        assert optax.tree.get(state, "total_notfinite") == 1
    slipped, _ = one_update(around, batch, fine, lambda w, i: broken)
    assert not any(jnp.isfinite(u).any() for u in jax.tree.leaves(slipped))


def test_momentum_sam_finds_the_momentum_of_the_optimizer_inside():
    params, batch = family.network_at()
    sgd = optax.sgd(0.1, momentum=0.9)
    perturbation = against_momentum(RHO)
    path = descend(sharpness.as_optax(sgd, perturbation, needs_gradient=False), [batch] * 3, params)
    state, v = sgd.init(params), None
    for expected in path:
        at = params
        if v is not None:  # none in the first step: no ascent
            at = optax.tree.add_scale(params, -RHO / optax.tree.norm(v), v)
        updates, state = sgd.update(GRAD(at, batch), state, params)
        params, v = optax.apply_updates(params, updates), optax.tree.get(state, "trace")
        family.close(params, expected)


def test_frozen_weights_stay_to_the_last_bit_and_are_never_perturbed():
    params, batch = family.network_at()
    frozen = {"w": True, "b": False, "v": False, "norm": {"scale": True}}
    label = lambda params: jax.tree.map(lambda f: "frozen" if f else "learns", frozen)
    parts = {"frozen": optax.set_to_zero(), "learns": optax.adam(0.1)}
    learns = jax.tree.map(lambda f: not f, frozen)
    optimizer = sharpness.as_optax(
        optax.multi_transform(parts, label), optax.chain(only(learns), to_ball(RHO))
    )
    state, w = optimizer.init(params), params
    for _ in range(3):
        seen = []
        further = lambda above, i, seen=seen: seen.append(above) or GRAD(above, batch)
        updates, state = optimizer.update(GRAD(w, batch), state, w, grad_fn=further)
        (above,) = seen
        for name in ("w", "norm"):
            family.equal(above[name], params[name])
        moved = [above[name] - w[name] for name in ("b", "v")]
        np.testing.assert_allclose(optax.tree.norm(moved), RHO, rtol=1e-5)
        w = optax.apply_updates(w, updates)
        assert all((w[name] != params[name]).any() for name in ("b", "v"))
    family.equal([w["w"], w["norm"]], [params["w"], params["norm"]])


def test_inside_optax_masked_only_the_part_that_learns_is_seen():
    params, batch = family.network_at()
    fixed = {name: params[name] for name in ("b", "norm", "v")}
    learns = {"w": True, "b": False, "v": False, "norm": False}

    def grad_fn(part, i):
        whole = {**fixed, "w": part["w"]}
        return {**part, "w": GRAD(whole, batch)["w"]}

    inner = sharpness.as_optax(optax.sgd(1.0), to_ball(RHO))
    updates, _ = one_update(optax.masked(inner, learns), batch, grad_fn=grad_fn)
    g = GRAD(params, batch)["w"]
    above = {**fixed, "w": params["w"] + RHO * g / jnp.linalg.norm(g)}
    family.close(updates["w"], -GRAD(above, batch)["w"])
