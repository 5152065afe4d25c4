import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from samscale import sharpness
from samscale.sharpness.perturbations import to_ball

A = jnp.array([[3.0, 1.0], [1.0, 2.0]])
W = jnp.array([1.0, -2.0])
every = pytest.mark.parametrize("name", ["exact_sam", "sam", "usam"])


def quadratic(w):
    """½ wᵀAw: gradient and Hessian are known without autodiff."""
    return 0.5 * w @ A @ w


def network(params, batch):
    x, y = batch
    hidden = jnp.tanh(x @ params["w"] + params["b"][None])
    return jnp.mean((hidden @ params["v"] - y) ** 2)


def network_at(seed=0, n=8, dtype=jnp.float32):
    key = jax.random.split(jax.random.key(seed), 5)
    shapes = {"w": (3, 4), "b": (4,), "v": (4,)}
    draw = zip(shapes.items(), key[:3], strict=True)
    params = {name: jax.random.normal(k, shape, dtype) for (name, shape), k in draw}
    batch = jax.random.normal(key[3], (n, 3), dtype), jax.random.normal(key[4], (n,), dtype)
    return params, batch


def gradient_of(name, loss, rho, params, *args):
    gradient = sharpness.PRESETS[name](jax.value_and_grad(loss), rho)
    (out, grads), _, info = gradient.value_and_grad(params, gradient.init(params), *args)
    return out, grads, info


@pytest.mark.parametrize("rho", [0.0, 0.1, 2.0])
def test_sam_is_the_gradient_at_the_end_of_a_step_of_length_rho(rho):
    out, grads, info = gradient_of("sam", quadratic, rho, W)
    g = A @ W
    above = W + rho * g / jnp.linalg.norm(g)
    np.testing.assert_allclose(grads, A @ above, rtol=1e-6)
    np.testing.assert_allclose([out, info.out], [quadratic(W), quadratic(above)], rtol=1e-6)
    np.testing.assert_allclose(sharpness.norm(info.ascent), rho, rtol=1e-6)


def test_usam_is_the_gradient_at_the_end_of_a_gradient_step():
    _, grads, _ = gradient_of("usam", quadratic, 0.3, W)
    np.testing.assert_allclose(grads, A @ (W + 0.3 * A @ W), rtol=1e-6)


def test_the_ascent_maximises_the_linearised_loss_on_its_sphere():
    params, batch = network_at()
    _, _, info = gradient_of("sam", network, 0.1, params, batch)
    best = optax.tree.vdot(info.clean_grads, info.ascent)
    np.testing.assert_allclose(best, 0.1 * sharpness.norm(info.clean_grads), rtol=1e-5)


@every
def test_at_a_critical_point_it_is_zero_and_not_nan(name):
    _, grads, info = gradient_of(name, quadratic, 0.1, jnp.zeros(2))
    np.testing.assert_array_equal(grads, jnp.zeros(2))
    assert info.out == 0


@every
def test_nan_and_infinity_pass_through(name):
    for bad in (jnp.nan, jnp.inf):
        _, grads, _ = gradient_of(name, quadratic, 0.1, jnp.array([bad, 1.0]))
        assert not jnp.isfinite(grads).all()


def test_the_plain_gradient_costs_one_and_has_no_gap():
    calls = []

    def counted(w):
        calls.append(1)
        return jax.value_and_grad(quadratic)(w)

    gradient = sharpness.plain(counted)
    (out, grads), _, info = gradient.value_and_grad(W, gradient.init(W))
    assert len(calls) == 1
    assert info.out == out
    np.testing.assert_array_equal(grads, A @ W)


@pytest.mark.parametrize("scale", [200.0, 1e-5])
def test_the_radius_is_exact_where_float16_squares_overflow_or_vanish(scale):
    g = {"a": jnp.full(100, scale, jnp.float16), "b": jnp.full(44, scale, jnp.float16)}
    perturbation = to_ball(0.5)
    ascent, _ = perturbation.update(g, perturbation.init(g))
    np.testing.assert_allclose(sharpness.norm(ascent), 0.5, rtol=1e-3)


def test_a_radius_may_follow_a_schedule():
    perturbation = to_ball(optax.linear_schedule(0.0, 1.0, 4))
    state = perturbation.init(W)
    norms = []
    for _ in range(3):
        ascent, state = perturbation.update(W, state, count=len(norms))
        norms.append(float(sharpness.norm(ascent)))
    np.testing.assert_allclose(norms, [0.0, 0.25, 0.5], atol=1e-6)


def test_sam_agrees_with_the_opaque_sam_of_optax_where_gradients_are_not_zero():
    params, batch = network_at()
    theirs = optax.contrib.sam(
        optax.sgd(0.1, momentum=0.9),
        optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
        opaque_mode=True,
    )
    ours = optax.sgd(0.1, momentum=0.9)
    gradient = sharpness.sam(jax.value_and_grad(network), 0.05)
    p, q = params, params
    theirs_state, ours_state, state = theirs.init(p), ours.init(q), gradient.init(q)
    for _ in range(20):
        grad_fn = jax.grad(lambda p, _: network(p, batch))
        updates, theirs_state = theirs.update(grad_fn(p, 0), theirs_state, p, grad_fn=grad_fn)
        p = optax.apply_updates(p, updates)
        (_, grads), state, _ = gradient.value_and_grad(q, state, batch)
        updates, ours_state = ours.update(grads, ours_state, q)
        q = optax.apply_updates(q, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), p, q)


@every
@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_is_the_mean_of_the_groups_own_sharp_gradients(name, groups):
    params, batch = network_at(n=8)
    gradient = sharpness.PRESETS[name](jax.value_and_grad(network), 0.2)
    together = sharpness.grouped(gradient, groups)
    (out, grads), _, info = together.value_and_grad(params, together.init(params), batch)
    parts = [jax.tree.map(lambda a, i=i: a.reshape(groups, -1, *a.shape[1:])[i], batch)
             for i in range(groups)]  # fmt: skip
    alone = [gradient_of(name, network, 0.2, params, part) for part in parts]
    mean = lambda *xs: sum(xs) / groups
    expected = jax.tree.map(mean, *[grads for _, grads, _ in alone])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), grads, expected
    )
    np.testing.assert_allclose(out, mean(*[out for out, _, _ in alone]), rtol=1e-6)
    np.testing.assert_allclose(info.out, mean(*[i.out for _, _, i in alone]), rtol=1e-6)


def test_groups_are_weighted_by_their_valid_examples():
    params, (x, y) = network_at(n=4)
    weight = jnp.array([1.0, 1.0, 1.0, 0.0])  # the second group holds one example

    def masked(params, x, y, weight):
        errors = (jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"] - y) ** 2
        return (errors * weight).sum() / weight.sum(), weight.sum()

    gradient = sharpness.sam(jax.value_and_grad(masked, has_aux=True), 0.0)
    grouped = sharpness.grouped(gradient, 2, weight=lambda out: out[1])
    (_, grads), _, _ = grouped.value_and_grad(params, grouped.init(params), x, y, weight)
    expected = jax.grad(network)(params, (x[:3], y[:3]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), grads, expected
    )


def test_a_mask_before_the_sphere_confines_the_whole_radius_to_what_it_leaves():
    params, batch = network_at()
    only_w = {"w": True, "b": False, "v": False}
    zero = optax.masked(optax.set_to_zero(), {k: not v for k, v in only_w.items()})
    perturbation = optax.chain(zero, to_ball(0.1))
    gradient = sharpness.sharpness_aware(jax.value_and_grad(network), perturbation)
    _, _, info = gradient.value_and_grad(params, gradient.init(params), batch)
    np.testing.assert_allclose(sharpness.norm(info.ascent["w"]), 0.1, rtol=1e-5)
    assert not info.ascent["b"].any()
    assert not info.ascent["v"].any()


def test_what_comes_out_is_never_looked_into():
    opaque = lambda w: (("anything", quadratic(w)), A @ w)
    gradient = sharpness.sam(opaque, 0.1)
    (out, _), _, info = gradient.value_and_grad(W, gradient.init(W))
    assert out[0] == info.out[0] == "anything"


def run(gradient, params=W, *args):
    return gradient.value_and_grad(params, gradient.init(params), *args)


def test_choices_that_do_not_fit_are_one_sentence():
    vg, key = jax.value_and_grad(quadratic), jax.random.key(0)
    params, batch = network_at()
    three = sharpness.m_sam(jax.value_and_grad(network), groups=3)
    on = {"axis_name": "d"}
    for words, make in (
        ("axis_name='d': must be None", lambda: sharpness.ssam_fisher(vg, **on)),
        ("axis_name='d': must be None, or", lambda: sharpness.esam(vg, losses=None, key=key, **on)),
        ("per_device=True: needs an axis_name", lambda: sharpness.sam(vg, per_device=True)),
        (
            "per_device=True: must be False",
            lambda: sharpness.ssam_dynamic(vg, key=key, per_device=True, **on),
        ),
        ("every=0: must be a whole number of at", lambda: sharpness.sam(vg, every=0)),
        ("every=2.5: must be a whole number", lambda: sharpness.sam(vg, every=2.5)),
        ("every=0: must be at least 1", lambda: sharpness.sassha(vg, every=0, key=key)),
        ("ord=0.5: must be a number of at least 1", lambda: sharpness.sam(vg, ord=0.5)),
        ("ord='inf': must be a number", lambda: sharpness.sam(vg, ord="inf")),
        ("ord=3: must be 1, 2 or inf", lambda: sharpness.sam(vg, ord=3, steps=2)),
        ("needs_gradient=False: every must be 1", lambda: sharpness.momentum_sam(vg, every=2)),
        ("gamma=1: must be at least 0", lambda: sharpness.wsam(vg, gamma=1)),
        ("sparsity=1.5: must be", lambda: sharpness.ssam_fisher(vg, sparsity=1.5)),
        ("samples=0: must be", lambda: sharpness.ssam_fisher(vg, samples=0)),
        ("refresh=0: must be", lambda: sharpness.ssam_fisher(vg, refresh=0)),
        ("theta=5: must be", lambda: sharpness.vasso(vg, theta=5)),
        ("decay=1: must be", lambda: sharpness.friendly_sam(vg, decay=1)),
        ("groups=0: must be a whole number of", lambda: sharpness.m_sam(vg, groups=0)),
        ("groups=3: must divide the 8 examples", lambda: run(three, params, batch)),
        ("rho=-0.1: must be finite", lambda: run(sharpness.sam(vg, -0.1))),
        ("rho=nan: must be finite", lambda: run(sharpness.usam(vg, float("nan")))),
        ("where=None: no leaf is called", lambda: run(sharpness.asam(vg))),
        ("perturbation=<function sam", lambda: sharpness.sharpness_aware(vg, sharpness.sam)),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011, the message is what is tested
            make()
        assert str(error.value).startswith(words)
