"""What a user stumbles over: other trees, bad batches, steps that cost less, numbers in between."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import family
from samscale import sharpness
from samscale.sharpness import perturbations

every = pytest.mark.parametrize("name", family.NAMES)
KEY = jax.random.key(3)


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.inner = nnx.Linear(3, 5, rngs=rngs)
        self.norm = nnx.LayerNorm(5, rngs=rngs)
        self.outer = nnx.Linear(5, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(jnp.tanh(self.norm(self.inner(x))))


def of_nnx():
    """A loss of the parameters of an NNX module, as a state."""
    structure, params = nnx.split(Net(), nnx.Param)
    x = jax.random.normal(KEY, (6, 3))
    return lambda params: (nnx.merge(structure, params)(x) ** 2).mean(), params


def of_pairs():
    """Of a list of tuples, whose leaves have no names."""
    x = jax.random.normal(KEY, (6, 3))
    loss = lambda p: ((jnp.tanh(x @ p[0][0] + p[0][1][None]) @ p[1][0]) ** 2).mean()
    return loss, [(jnp.ones((3, 4)) / 2, jnp.zeros(4)), (jnp.ones(4),)]


def gradient_at(gradient, params, *args, **how):
    (_, grads), _, info = gradient.value_and_grad(params, gradient.init(params), *args, **how)
    return grads, info


def test_asam_and_sam_on_know_the_leaves_of_an_nnx_module():
    loss, params = of_nnx()
    vg = jax.value_and_grad(loss)
    _, g = vg(params)
    _, info = gradient_at(sharpness.asam(vg, 0.5, eta=0.01), params)
    kernels = {"inner": {"bias": False, "kernel": True}, "norm": {"bias": False, "scale": False}}
    kernels["outer"] = kernels["inner"]
    kernels = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(kernels))
    t = jax.tree.map(lambda w, k: jnp.abs(w) + 0.01 if k else jnp.ones(()), params, kernels)
    u = jax.tree.map(jnp.multiply, t, g)
    rate = 0.5 / sharpness.norm(u)
    family.close(info.ascent, jax.tree.map(lambda t, u: rate * t * u, t, u))
    _, info = gradient_at(sharpness.sam_on(vg, 0.5), params)
    moved = jax.tree.map(lambda e: bool(jnp.abs(e).max() > 0), info.ascent)
    still = {"inner": {"bias": False, "kernel": False}, "norm": {"bias": True, "scale": True}}
    assert jax.tree.leaves(moved) == [*jax.tree.leaves(still), False, False]


def test_where_leaves_have_no_names_asam_asks_which_are_kernels():
    loss, params = of_pairs()
    vg = jax.value_and_grad(loss)
    with pytest.raises(ValueError, match=r"where=None: no leaf is called .* where\(params\) says"):
        gradient_at(sharpness.asam(vg), params)
    matrices = lambda params: jax.tree.map(lambda w: w.ndim == 2, params)
    told, _ = gradient_at(sharpness.asam(vg, where=matrices), params)
    named = {"in": {"kernel": params[0][0], "bias": params[0][1]}, "out": params[1][0]}
    again = jax.value_and_grad(lambda p: loss([(p["in"]["kernel"], p["in"]["bias"]), (p["out"],)]))
    known, _ = gradient_at(sharpness.asam(again), named)
    family.close(told, [(known["in"]["kernel"], known["in"]["bias"]), (known["out"],)])


@pytest.mark.parametrize("ord", [1.5, 2, 3, np.inf])
def test_a_zero_entry_of_the_gradient_leaves_the_exact_gradient_finite(ord):
    loss = lambda w: w[0] ** 2 / 2 + 0 * w[1]
    gradient = sharpness.exact_sam(jax.value_and_grad(loss), 0.1, ord=ord)
    grads, _ = gradient_at(gradient, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(grads, [1.1, 0.0], rtol=1e-6)  # e = 0.1 sign(w_0), whatever ord is


@pytest.mark.parametrize("ord", [1, 1.5, 2, 3, np.inf])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_no_norm_swallows_what_is_not_finite(ord, bad):
    g = {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)}
    e, _ = perturbations.to_ball(0.5, ord).update(g, optax.EmptyState(), g)
    assert not np.isfinite(np.concatenate(jax.tree.leaves(e))).all()


@every
@pytest.mark.parametrize("bad", [0, 1])  # of periodic methods, a full step and a cheap one
def test_a_bad_batch_is_forgotten_in_the_next_step(name, bad):
    params, (x, y) = family.network_at()
    gradient = family.make(name)
    opt_state = family.optimizer(name).init(params)
    climb = family.jit(lambda s, b: gradient.value_and_grad(params, s, b, opt_state=opt_state))
    state = gradient.init(params)
    for step in range(4):
        (_, grads), state, _ = climb(state, (x, y * (jnp.nan if step == bad else 1)))
        finite = all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        assert finite is (step != bad)


def test_fisher_sam_of_a_large_gradient_is_as_long_as_its_formula_says():
    for size in (1e-3, 1e10, 1e20):
        g = jnp.full(4, size, jnp.float32)
        e, _ = perturbations.to_fisher_ball(0.1).update(g, optax.EmptyState(), g)
        x = np.full(4, size, np.float64)
        f = 1 + x**2
        np.testing.assert_allclose(e, 0.1 * x / f / np.sqrt((x**2 / f).sum()), rtol=1e-5)


def test_clipped_wsam_clips_the_sum_of_what_it_hands_over():
    params, batch = family.network_at()
    total = lambda grads, info: jax.tree.map(jnp.add, grads, info.extra["sharpness"])
    loose, tight = (
        total(*gradient_at(family.make("wsam", clip_norm=c), params, batch)) for c in (0.0, 0.01)
    )
    assert sharpness.norm(loose) > 0.1
    np.testing.assert_allclose(sharpness.norm(tight), 0.01, rtol=1e-5)
    family.close(tight, jax.tree.map(lambda x: 0.01 / sharpness.norm(loose) * x, loose))


def test_the_radius_of_gsam_goes_from_rho_at_the_peak_to_rho_min_at_the_end():
    shape = lambda t: 1 / jnp.sqrt(jnp.maximum(t, 100.0))  # its peak is 0.1
    radius = sharpness.follow(shape, 0.6, 0.1, peak=0.1, end=0.05)
    np.testing.assert_allclose([radius(0), radius(100), radius(400)], [0.6, 0.6, 0.1], rtol=1e-5)
    np.testing.assert_allclose(radius(225), 0.1 + 0.5 * (1 / 15 - 0.05) / 0.05, rtol=1e-5)
    assert radius(10_000) == pytest.approx(0.1)
    assert sharpness.follow(lambda t: 1.0, 0.6, 0.1, peak=1.0, end=1.0)(7) == 0.6


def test_a_mask_is_renewed_once_a_period_whatever_steps_climb():
    params, batch = family.network_at()
    gradient = family.make("ssam_dynamic", refresh=7, every=3)
    state, before, renewed = gradient.init(params), None, []
    climb = family.jit(gradient.value_and_grad)
    for step in range(30):
        _, state, _ = climb(params, state, batch)
        mask = np.concatenate([np.ravel(m) for m in jax.tree.leaves(state.perturbation)])
        if before is not None and (mask != before).any():
            renewed.append(step)
        before = mask
    assert renewed == [9, 15, 21]  # the first full steps from 7, 14 and 21 on


@pytest.mark.parametrize(
    "name, choices, expected",
    [
        ("sam", {}, [1, 1, 1, 1]),
        ("periodic_sam", {"every": 2}, [1, 0, 1, 0]),
        ("looksam", {"every": 3}, [1, 0, 0, 1]),
        ("random_sam", {}, [0, 0, 0, 0]),
        ("momentum_sam", {}, [0, 0, 0, 0]),
        ("bsam", {}, [0, 0, 0, 0]),
        ("sassha", {}, [1, 1, 1, 1]),
        ("esam", {}, [0, 0, 0, 0]),
        ("esam", {"gamma": 1.0}, [1, 1, 1, 1]),
        ("m_sam", {"groups": 4}, [1, 1, 1, 1]),
    ],
)
def test_it_says_whether_both_passes_saw_the_same_examples(name, choices, expected):
    params, batch = family.network_at()
    begin, step = family.stepper(name, family.make(name, **choices))
    state, found = begin(params), []
    for _ in expected:
        state, (_, _, info) = step(state, batch)
        found.append(int(info.compared))
    assert found == expected


def test_random_keys_in_what_a_pass_gives_survive_groups():
    def vg(w, x):
        return (x.mean(), jax.random.key(0)), w * x.mean()

    gradient = sharpness.grouped(sharpness.sam(vg), 2)
    (out, _), _, _ = gradient.value_and_grad(jnp.ones(2), gradient.init(jnp.ones(2)), jnp.ones(4))
    assert jnp.issubdtype(out[1].dtype, jax.dtypes.prng_key)


def test_of_two_momentum_buffers_momentum_sam_asks_which():
    params = {"trace": jnp.ones(3)}  # a name that buffers have, too
    vg = jax.value_and_grad(lambda p: (p["trace"] ** 2).sum())
    one = optax.chain(optax.trace(0.9), optax.scale(-0.1)).init(params)
    one = jax.tree.map(jnp.ones_like, one)
    _, info = gradient_at(sharpness.momentum_sam(vg, 0.3), params, opt_state=one)
    np.testing.assert_allclose(info.ascent["trace"], -0.3 / 3**0.5, rtol=1e-6)
    two = (one, one)
    with pytest.raises(ValueError, match="opt_state: must have one momentum buffer"):
        gradient_at(sharpness.momentum_sam(vg), params, opt_state=two)
    told = sharpness.momentum_sam(vg, 0.3, momentum=lambda s: s[1][0].trace)
    family.equal(gradient_at(told, params, opt_state=two)[1].ascent, info.ascent)


@pytest.mark.parametrize("preset", [sharpness.sam, sharpness.usam])
def test_complex_parameters_climb_uphill(preset):
    loss = lambda w: jnp.abs(w - (1 + 2j)) ** 2
    w = jnp.array(0.3 + 0.1j)
    _, info = gradient_at(preset(jax.value_and_grad(loss), 0.1), w)
    away = (w - (1 + 2j)) / abs(w - (1 + 2j))
    np.testing.assert_allclose(info.ascent / abs(info.ascent), away, rtol=1e-5)


def diagonal(w, x, y):
    """A diagonal linear network: x . (u^2 - v^2)."""
    return (x @ (w["u"] ** 2 - w["v"] ** 2) - y) ** 2


@pytest.mark.parametrize("groups", [1, 6])
def test_n_sam_and_1_sam_of_a_diagonal_linear_network_are_their_closed_form(groups):
    """Andriushchenko and Flammarion, 2022: with r the residual, the gradient is 4 r x u, -4 r x v,
    and unnormalized SAM multiplies before it takes the gradient again."""
    key = jax.random.split(KEY, 3)
    x, y = jax.random.normal(key[0], (6, 4)), jax.random.normal(key[1], (6,))
    w = {"u": 0.3 * jax.random.normal(key[2], (4,)), "v": jnp.linspace(0.1, 0.4, 4)}
    loss = lambda w, x, y: jax.vmap(diagonal, (None, 0, 0))(w, x, y).mean()
    gradient = sharpness.grouped(sharpness.usam(jax.value_and_grad(loss), 0.02), groups)
    u, v = (np.asarray(w[name], np.float64) for name in "uv")
    xs, ys = (np.asarray(a, np.float64) for a in (x, y))
    parts = np.split(np.arange(6), groups)
    state = gradient.init(w)
    for _ in range(20):
        (_, g), state, _ = gradient.value_and_grad(w, state, x, y)
        w = jax.tree.map(lambda w, g: w - 0.01 * g, w, g)
        total = np.zeros((2, 4))
        for rows in parts:
            slope = lambda u, v, r=rows: 4 * xs[r].T @ (xs[r] @ (u**2 - v**2) - ys[r]) / len(r)
            above = u + 0.02 * slope(u, v) * u, v - 0.02 * slope(u, v) * v
            total += np.stack([slope(*above) * above[0], -slope(*above) * above[1]]) / groups
        u, v = u - 0.01 * total[0], v - 0.01 * total[1]
    np.testing.assert_allclose(np.stack([w["u"], w["v"]]), np.stack([u, v]), rtol=2e-4)


def test_sam_leaves_a_sharp_minimum_that_sgd_stays_in():
    narrow = lambda w: -1.2 * jnp.exp(-(((w - jnp.array([-1.0, 0.0])) / 0.1) ** 2).sum())
    wide = lambda w: -jnp.exp(-(((w - jnp.array([1.0, 0.0])) / 1.2) ** 2).sum())
    vg = jax.value_and_grad(lambda w: narrow(w) + wide(w))

    def end(gradient):
        def step(carry, _):
            w, state = carry
            (_, g), state, _ = gradient.value_and_grad(w, state)
            return (w - 0.003 * g, state), None

        w = jnp.array([-1.03, 0.02])
        return jax.lax.scan(step, (w, gradient.init(w)), None, 3000)[0][0]

    np.testing.assert_allclose(end(sharpness.plain(vg)), [-1, 0], atol=0.05)
    assert end(sharpness.sam(vg, 0.5))[0] > -0.6  # four of its widths away


@pytest.mark.parametrize("ord", [1.5, 2, 3])
def test_a_step_of_sam_can_be_differentiated_as_maml_does(ord):
    params, batch = family.network_at(3)
    flat, tree = jax.flatten_util.ravel_pytree(params)

    def after(flat):
        gradient = sharpness.sam(jax.value_and_grad(family.network), 0.05, ord=ord)
        w = tree(flat)
        (_, g), _, _ = gradient.value_and_grad(w, gradient.init(w), batch)
        return family.network(jax.tree.map(lambda w, g: w - 0.1 * g, w, g), batch)

    with jax.enable_x64(True):
        flat = flat.astype(jnp.float64)
        params, batch = jax.tree.map(lambda a: a.astype(jnp.float64), (params, batch))
        flat, tree = jax.flatten_util.ravel_pytree(params)
        along = jax.random.normal(KEY, flat.shape, jnp.float64)
        slope = (after(flat + 1e-6 * along) - after(flat - 1e-6 * along)) / 2e-6
        np.testing.assert_allclose(jax.grad(after)(flat) @ along, slope, rtol=1e-6)
