"""Large, small and broken numbers, and the many ways to give a radius."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import family
from samscale import sharpness
from samscale.sharpness.perturbations import only, per_layer, times, to_ball, to_fisher_ball

every = pytest.mark.parametrize("name", family.NAMES)
SIZES = [
    (dtype, size)
    for dtype, sizes in {
        jnp.float16: [200.0, 1e-5],
        jnp.bfloat16: [200.0, 1e-5, 1e-25, 1e30],
        jnp.float32: [200.0, 1e-5, 1e-25, 1e30],
    }.items()
    for size in sizes
]
sizes = pytest.mark.parametrize("dtype, size", SIZES)


def gradients_of(size, dtype):
    return {"a": jnp.full(100, size, dtype), "b": jnp.full((4, 11), size, dtype)}


def length(tree):
    """In float64, whatever the leaves are."""
    return np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(tree)))


def ascent_of(perturbation, g, params=None, **extra):
    e, _ = optax.with_extra_args_support(perturbation).update(
        g, perturbation.init(g), params, **extra
    )
    return e


def real(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]


@sizes
def test_a_norm_neither_overflows_nor_vanishes(dtype, size):
    g = gradients_of(size, dtype)
    np.testing.assert_allclose(sharpness.norm(g), length(g), rtol=1e-6)


def test_a_norm_of_ordinary_numbers_is_the_root_of_the_sum_of_squares():
    for seed in range(5):
        params, _ = family.network_at(seed)
        naive = jnp.sqrt(sum((x**2).sum() for x in jax.tree.leaves(params)))
        np.testing.assert_allclose(sharpness.norm(params), naive, rtol=1e-6)


@sizes
@pytest.mark.parametrize("ord", [2, 3, jnp.inf])
def test_the_radius_is_exact_whatever_the_size_of_the_gradient(dtype, size, ord):
    e = ascent_of(to_ball(0.5, ord), gradients_of(size, dtype))
    flat = np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(e)])
    np.testing.assert_allclose(np.linalg.norm(flat, ord), 0.5, rtol=float(jnp.finfo(dtype).eps))
    assert {x.dtype for x in e.values()} == {jnp.dtype(dtype)}


@functools.cache
def stepper(name):
    begin, step = family.stepper(name)
    return begin, family.jit(step)


@pytest.mark.parametrize("name", [n for n in family.NAMES if n not in family.ONE_PASS])
def test_a_zero_gradient_gives_no_ascent_and_no_update(name):
    params, batch = family.network_at()
    params, batch = params | {"b": jnp.zeros(4)}, jax.tree.map(jnp.zeros_like, batch)
    begin, step = stepper(name)
    state = begin(params)
    for _ in range(2):
        state, (_, grads, info) = step(state, batch)
        assert not any(x.any() for x in jax.tree.leaves((grads, info.ascent)))
        assert all(jnp.isfinite(x).all() for x in real((state, info)))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("perturbation", [to_ball, to_fisher_ball, per_layer, times])
def test_the_ascent_of_what_is_not_finite_is_not_finite(perturbation, bad):
    g = {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}
    e = ascent_of(perturbation(0.5), g, params=g)
    assert not jnp.isfinite(e["a"]).all()


@every
def test_what_is_not_finite_reaches_the_optimizer_which_may_skip_the_step(name):
    params, (x, y) = family.network_at()
    begin, step = stepper(name)
    optimizer = optax.apply_if_finite(family.optimizer(name), 3)
    opt_state = optimizer.init(params)
    for bad in (jnp.nan, jnp.inf):
        _, (_, grads, info) = step(begin(params), (x, jnp.full_like(y, bad)))
        updates, opt_state = optimizer.update(grads, opt_state, params, **info.extra)
        assert not any(u.any() for u in jax.tree.leaves(updates))
    assert opt_state.total_notfinite == 2


@every
def test_float64_stays_float64(name):
    with jax.enable_x64(True):
        params, batch = family.network_at(dtype=jnp.float64)
        begin, step = family.stepper(name)
        found = jax.eval_shape(step, begin(params), batch)  # state, gradients, ascent and all
        assert {x.dtype for x in real(found)} == {jnp.dtype(jnp.float64)}


def test_float64_is_computed_in_float64():
    with jax.enable_x64(True):
        params, _ = family.network_at(dtype=jnp.float64)
        for ord in (2, 3):
            e = ascent_of(to_ball(0.3, ord), params)
            flat = np.concatenate([x.ravel() for x in jax.tree.leaves(e)])
            np.testing.assert_allclose(np.linalg.norm(flat, ord), 0.3, rtol=1e-14)
        np.testing.assert_allclose(sharpness.norm(params), length(params), rtol=1e-14)


@pytest.mark.parametrize("rho", [0.3, np.float32(0.3), jnp.asarray(0.3), lambda count: 0.1 * count])
def test_a_radius_is_a_number_an_array_or_a_schedule(rho):
    params, _ = family.network_at()
    e = jax.jit(lambda g, count: ascent_of(to_ball(rho), g, count=count))(params, 3)
    np.testing.assert_allclose(length(e), 0.3, rtol=1e-6)


def test_a_radius_may_be_traced_and_differentiated():
    params, _ = family.network_at()
    measure = lambda rho: sharpness.norm(ascent_of(to_ball(rho), params))
    value, slope = jax.jit(jax.value_and_grad(measure))(0.3)
    np.testing.assert_allclose([value, slope], [0.3, 1.0], rtol=1e-6)


def test_each_parameter_may_have_a_radius_of_its_own():
    params, _ = family.network_at()
    rho = {"w": 0.1, "b": 0.0, "v": jnp.asarray(0.4), "norm": {"scale": 0.2}}
    total = length(params)
    expected = jax.tree.map(lambda r, g: r * g / total, rho, params)
    for given in (rho, lambda count: jax.tree.map(lambda r: r * count, rho)):
        family.close(ascent_of(to_ball(given), params, count=1), expected)


@pytest.mark.parametrize("choices, climbing", [
    ({}, [0, 1, 2, 3, 4, 5]), ({"steps": 3}, [0, 1, 2, 3, 4, 5]), ({"every": 5}, [0, 5]),
])  # fmt: skip
def test_a_schedule_advances_once_a_step_however_many_gradients_it_takes(choices, climbing):
    slope = lambda w: (w.sum(), jnp.ones_like(w))  # the same way up everywhere
    schedule = lambda count: 0.5 + 0.1 * count
    gradient = sharpness.sam(slope, schedule, **choices)
    w = jnp.ones(4)
    state, step = gradient.init(w), jax.jit(gradient.value_and_grad)
    for count in range(6):
        _, state, info = step(w, state)
        expected = schedule(count) if count in climbing else 0.0
        np.testing.assert_allclose(length(info.ascent), expected, rtol=1e-6)
        assert state.count == count + 1


def test_a_mask_before_the_ball_keeps_the_radius_and_one_after_it_shortens_the_step():
    params, _ = family.network_at()
    mask = only({"w": True, "b": False, "v": jnp.arange(4) < 2, "norm": {"scale": False}})
    before = ascent_of(optax.chain(mask, to_ball(0.3)), params)
    after = ascent_of(optax.chain(to_ball(0.3), mask), params)
    np.testing.assert_allclose(length(before), 0.3, rtol=1e-6)
    kept = length(ascent_of(mask, params)) / length(params)
    np.testing.assert_allclose(length(after), 0.3 * kept, rtol=1e-6)
    assert kept < 1
    for e in (before, after):
        assert not any(x.any() for x in (e["b"], e["norm"]["scale"], e["v"][2:]))
