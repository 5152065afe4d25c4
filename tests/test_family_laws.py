"""What the methods of the family become, keep and balance: laws in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from family import network, network_at
from samscale import sharpness
from samscale.sharpness.perturbations import to_ball
from test_family_formulas import CHOICES, by_package, needed, point

P = [1, 1.5, 2, 3, np.inf]
OF_THE_SCALE = {"usam", "fisher_sam", "bsam", "sassha"}


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def once(name, value_and_grad=None, params=None, args=None, **choices):
    """One step of the method, whose optimizer was pulling upwards and trusts all weights alike."""
    start, batch = point()
    params, args = start if params is None else params, (batch,) if args is None else args
    value_and_grad = value_and_grad or jax.value_and_grad(network)
    gradient = sharpness.PRESETS[name](value_and_grad, **needed(name), **choices)
    ones = jax.tree.map(jnp.ones_like, params)
    opt_state = {"trace": ones, "precision": ones}
    (_, grads), state, info = jax.jit(gradient.value_and_grad)(
        params, gradient.init(params), *args, opt_state=opt_state
    )
    return grads, state, info


@pytest.mark.parametrize("name", sorted(set(sharpness.PRESETS) - {"bsam", "sassha"}))
def test_at_radius_zero_it_is_the_base_optimizer(name):
    choices = CHOICES[name] | {"rho": 0.0} | ({"gamma": 1.0} if name == "esam" else {})
    np.testing.assert_allclose(
        by_package(name, choices), by_package("plain", {}), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("name", ["bsam", "sassha"])
def test_at_radius_zero_a_method_with_an_own_optimizer_gives_it_the_plain_gradient(name):
    params, batch = point()
    choices = {"num_examples": 100} if name == "bsam" else {}
    grads, _, _ = once(name, rho=0.0, **choices)
    np.testing.assert_allclose(
        flat(grads), flat(jax.grad(network)(params, batch)), rtol=0, atol=1e-15
    )


@pytest.mark.parametrize(
    "name, choices",
    [
        ("gsam", {"alpha": 0.0}),
        ("wsam_coupled", {"gamma": 0.5}),
        ("friendly_sam", {"sigma": 0.0}),
        ("vasso", {"theta": 1.0}),
        ("ssam_fisher", {"sparsity": 0.0, "samples": 2}),
        ("ssam_dynamic", {"sparsity": 0.0, "refresh": 7}),
        ("looksam", {"every": 1}),
        ("periodic_sam", {"every": 1}),
        ("esam", {"beta": 1.0, "gamma": 1.0}),
        ("m_sam", {"groups": 1}),
        ("multistep_sam", {"steps": 1}),
        ("fisher_sam", {"eta": 0.0}),
        ("sam_on", {"where": lambda params: jax.tree.map(lambda w: True, params)}),
    ],
)
def test_at_the_end_of_its_range_it_is_sam(name, choices):
    expected = by_package("sam", {"rho": 0.1})
    np.testing.assert_allclose(
        by_package(name, {"rho": 0.1, **choices}), expected, rtol=0, atol=1e-12
    )


def test_decoupled_wsam_at_half_is_sam_for_sgd_without_momentum():
    half, sam = {"rho": 0.1, "gamma": 0.5}, by_package("sam", {"rho": 0.1}, momentum=0.0)
    np.testing.assert_allclose(by_package("wsam", half, momentum=0.0), sam, rtol=0, atol=1e-13)
    assert np.abs(by_package("wsam", half) - by_package("sam", {"rho": 0.1})).max() > 1e-3


@pytest.mark.parametrize("name", ["wsam", "wsam_coupled"])
def test_wsam_at_zero_is_no_sam(name):
    ours, expected = by_package(name, {"rho": 0.1, "gamma": 0.0}), by_package("plain", {})
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)


def test_looksam_that_does_not_look_is_periodic_sam():
    ours = by_package("looksam", {"rho": 0.1, "alpha": 0.0, "every": 3})
    expected = by_package("periodic_sam", {"rho": 0.1, "every": 3})
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)


def test_bsam_that_is_sure_of_its_weights_ascends_like_usam():
    ours = once("bsam", rho=0.1, num_examples=1e40)[0]
    np.testing.assert_allclose(flat(ours), flat(once("usam", rho=0.1)[0]), rtol=1e-12)


@pytest.mark.parametrize("metric", [None, lambda w: jax.tree.map(lambda w: jnp.abs(w) + 0.1, w)])
@pytest.mark.parametrize("p", P)
def test_the_ascent_is_dual_to_the_gradient(p, metric):
    r"""$\|e / T\|_p = \rho$ and $\langle g, e \rangle = \rho \|T g\|_q$: none climbs faster."""
    params, _ = point()
    g, _ = network_at(seed=7, dtype=jnp.float64)
    ball = to_ball(0.3, p, metric)
    e = flat(ball.update(g, ball.init(params), params)[0])
    t = flat(metric(params)) if metric else np.ones(e.size)
    q = {1: np.inf, np.inf: 1}.get(p) or p / (p - 1)
    np.testing.assert_allclose(np.linalg.norm(e / t, p), 0.3, rtol=1e-13)
    np.testing.assert_allclose(flat(g) @ e, 0.3 * np.linalg.norm(t * flat(g), q), rtol=1e-13)


def test_largest_entries_that_tie_share_the_radius_of_the_l1_ball():
    ball = to_ball(0.3, 1)
    g = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([[-3.0], [3.0]])}
    e, _ = ball.update(g, ball.init(g), g)
    np.testing.assert_allclose(e["a"], [0.1, 0.0])
    np.testing.assert_allclose(e["b"], [[-0.1], [0.1]])


def test_what_gsam_adds_to_the_perturbed_gradient_is_orthogonal_to_it():
    gs = flat(once("sam", rho=0.3)[0])
    added = flat(once("gsam", rho=0.3, alpha=0.7)[0]) - gs
    assert np.linalg.norm(added) > 0.01 * np.linalg.norm(gs)
    assert abs(added @ gs) < 1e-14 * np.linalg.norm(added) * np.linalg.norm(gs) * gs.size


@pytest.mark.parametrize("name", ["looksam", "look_layer_sam"])
def test_what_looksam_remembers_is_orthogonal_to_the_clean_gradient(name):
    _, state, info = once(name, rho=0.3)
    g, v = flat(info.clean_grads), flat(state.memo)
    assert np.linalg.norm(v) > 0.01 * np.linalg.norm(g)
    assert abs(g @ v) < 1e-14 * np.linalg.norm(g) * np.linalg.norm(v) * g.size


@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_asam_sees_no_rescaling_of_the_layers_of_a_relu_network_and_sam_does(p):
    def loss(params, batch):
        x, y = batch
        return jnp.mean((jax.nn.relu(x @ params["w"]) @ params["v"] - y) ** 2)

    def above(name, c):
        params, batch = point()
        params = {"w": c * params["w"], "v": params["v"] / c}
        vg = jax.value_and_grad(loss)
        return once(name, vg, params, (batch,), rho=0.1, ord=p)[2].out

    np.testing.assert_allclose(above("asam_all", 3.0), above("asam_all", 1.0), rtol=1e-13)
    assert abs(above("sam", 3.0) - above("sam", 1.0)) > 0.01


def test_to_first_order_sam_adds_the_hessian_times_the_unit_gradient():
    params, batch = point()
    g = jax.grad(network)(params, batch)
    unit = jax.tree.map(lambda x: x / np.linalg.norm(flat(g)), g)
    _, expected = jax.jvp(lambda w: jax.grad(network)(w, batch), (params,), (unit,))
    rhos = 10.0 ** -np.arange(2, 5)
    slopes = [(flat(once("sam", rho=rho)[0]) - flat(g)) / rho for rho in rhos]
    errors = [np.linalg.norm(slope - flat(expected)) for slope in slopes]
    order, _ = np.polyfit(np.log(rhos), np.log(errors), 1)
    assert errors[-1] < 1e-3 * np.linalg.norm(flat(expected))
    assert order == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "name, without, choices",
    [
        ("exact_sam", "sam", {}),
        ("exact_sam", "sam", {"ord": 3}),
        ("exact_sam", "sam", {"steps": 3}),
        ("asam", "asam", {"through": True}),
        ("vasso", "vasso", {"through": True}),
    ],
)
def test_through_the_ascent_it_is_the_slope_of_the_loss_above(name, without, choices):
    w, unflatten = ravel_pytree(point()[0])
    ours = flat(once(name, rho=0.2, **choices)[0])
    choices = choices | ({"through": False} if "through" in choices else {})
    above = lambda w: once(without, params=unflatten(w), rho=0.2, **choices)[2].out
    moves = 1e-5 * jnp.concatenate([jnp.eye(w.size), -jnp.eye(w.size)])
    up, down = jax.jit(jax.vmap(above))(w[None] + moves).reshape(2, -1)
    np.testing.assert_allclose(ours, (up - down) / 2e-5, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(sharpness.PRESETS) - OF_THE_SCALE))
def test_a_normalised_method_is_blind_to_the_scale_of_the_loss(name):
    scaled = by_package(name, CHOICES[name], times=2.0**15)
    np.testing.assert_allclose(scaled, by_package(name, CHOICES[name]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["usam", "fisher_sam"])
def test_a_method_that_is_not_normalised_sees_it(name):
    scaled = by_package(name, CHOICES[name], times=2.0)
    assert np.abs(scaled - by_package(name, CHOICES[name])).max() > 1e-3


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_the_radius_of_usam_does_not_depend_on_the_number_of_groups(parts):
    params, batch = point()
    vg = jax.value_and_grad(network)
    gradient = sharpness.usam(vg, 0.3)
    parted = (
        sharpness.grouped(gradient, parts),
        sharpness.usam(sharpness.accumulated(vg, parts), 0.3),
    )
    expected = 0.3 * flat(jax.grad(network)(params, batch))
    for each in parted:
        _, _, info = each.value_and_grad(params, each.init(params), batch)
        np.testing.assert_allclose(flat(info.ascent), expected, rtol=1e-12)
