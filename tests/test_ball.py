"""The loss in balls around w, against closed forms, bounds and invariances."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import family
from samscale.flatness import ball

KEY = jax.random.key(0)
norms = pytest.mark.parametrize("norm", sorted(ball.NORMS))
pairs = pytest.mark.parametrize("norm, adaptive", [("l2", False), ("linf", True)])
either = pytest.mark.parametrize("adaptive", [False, True])
ROOT = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
RADII = (0.0, 0.01, 0.1, 0.5)
NOTHING = jnp.zeros((12, 1))  # twelve examples without a content


@pytest.fixture(autouse=True, scope="module")
def _programs_compile_soon():
    whole = ball._run
    ball._run = family.jit(whole.__wrapped__, static_argnums=(0, 1, 2))
    yield
    ball._run = whole


def quadratic(w, batch):
    """1/2 w'Aw for all examples."""
    a = ROOT.T @ ROOT
    return jnp.full(len(batch), w @ jnp.asarray(a, w.dtype) @ w / 2)


def linear(w, batch):
    return batch @ w


def relu(params, batch):
    x, y = batch
    return (jax.nn.relu(x @ params["in"]) @ params["out"] - y) ** 2


def relu_at(dtype=jnp.float32, n=12):
    key = jax.random.split(jax.random.key(3), 4)
    draw = lambda k, *shape: jax.random.normal(k, shape, dtype)
    params = {"in": draw(key[0], 3, 4).at[1, 2].set(0), "out": draw(key[1], 4)}
    return params, (draw(key[2], n, 3), draw(key[3], n))


@functools.cache
def near_minimum():
    """A ReLU network after descent, one weight of which is held at 0."""
    params, data = relu_at()
    slope = jax.grad(lambda params: relu(params, data).mean())

    def descended(_, params):
        params = jax.tree.map(lambda w, g: w - 0.02 * g, params, slope(params))
        return {**params, "in": params["in"].at[1, 2].set(0)}

    return family.jit(lambda p: jax.lax.fori_loop(0, 300, descended, p))(params), data


def searched(rho=0.1, norm="l2", adaptive=False, **choices):
    return ball.worst_case(relu, *near_minimum(), KEY, rho, norm, adaptive, **choices)


def test_a_bowl_rises_by_half_its_largest_eigenvalue_times_the_squared_radius():
    found = ball.worst_case(quadratic, jnp.zeros(6), NOTHING, KEY, 0.3, steps=40, restarts=3)
    values, vectors = np.linalg.eigh(ROOT.T @ ROOT)
    np.testing.assert_allclose(found.rise, values[-1] * 0.3**2 / 2, rtol=1e-4)
    assert abs(found.delta @ vectors[:, -1]) == pytest.approx(0.3, rel=1e-3)
    assert found.clean == 0


def test_a_bowl_rises_most_at_a_corner_of_the_cube():
    found = ball.worst_case(quadratic, jnp.zeros(6), NOTHING, KEY, 0.3, "linf", restarts=12)
    corners = 0.6 * (np.indices((2,) * 6).reshape(6, -1).T - 0.5)
    np.testing.assert_allclose(found.rise, ((corners @ ROOT.T) ** 2).sum(1).max() / 2, rtol=1e-5)


def test_the_best_of_the_cube_may_lie_inside():
    diagonal = lambda w, batch: jnp.full(len(batch), w**2 @ jnp.array([3.0, 1.0, -2.0]) / 2)
    found = ball.worst_case(diagonal, jnp.zeros(3), NOTHING, KEY, 0.5, "linf", steps=100)
    np.testing.assert_allclose(found.rise, 0.5**2 * (3 + 1) / 2, rtol=1e-4)
    np.testing.assert_allclose(jnp.abs(found.delta), [0.5, 0.5, 0], atol=1e-2)


@norms
@either
def test_a_slope_rises_by_the_dual_norm(norm, adaptive):
    w, x = jnp.array([2.0, 0.0, -3.0]), jnp.array([[1.0, 5.0, 2.0], [3.0, 1.0, -4.0]])
    g = x.mean(0) * (jnp.abs(w) if adaptive else 1)
    expected = 0.2 * jnp.linalg.norm(g, 2 if norm == "l2" else 1)
    gap = ball.sam_gap(linear, w, x, 0.2, norm, adaptive)
    found = ball.worst_case(linear, w, x, KEY, 0.2, norm, adaptive, steps=3, restarts=1)
    np.testing.assert_allclose([gap.rise, gap.linear, found.rise], expected, rtol=1e-5)
    np.testing.assert_allclose([gap.rest, gap.clean], [0, x.mean(0) @ w], atol=1e-5)


def test_the_rest_of_a_gap_is_the_curvature_along_the_slope():
    w = jnp.arange(1.0, 7)
    a = ROOT.T @ ROOT
    gap, g = ball.sam_gap(quadratic, w, NOTHING, 0.5), a @ w
    np.testing.assert_allclose(gap.rest, 0.5**2 / 2 * g @ a @ g / (g @ g), rtol=1e-3)
    np.testing.assert_allclose(gap.clean, w @ a @ w / 2, rtol=1e-5)


@norms
@either
def test_no_point_is_below_w_or_that_of_sam_and_larger_balls_rise_more(norm, adaptive):
    gap = lambda rho: ball.sam_gap(relu, *near_minimum(), rho, norm, adaptive)
    gaps, found = zip(*((gap(r), searched(r, norm, adaptive)) for r in RADII), strict=True)
    rises = np.array([f.rise for f in found])
    assert abs(rises[0]) < 1e-7 * found[0].clean
    assert (rises >= 0).all()
    assert (np.diff(rises) > 0).all()
    assert (rises >= [g.rise * (1 - 1e-5) - 1e-8 for g in gaps]).all()
    assert rises[-1] > 1.02 * gaps[-1].rise  # more than one step is of use
    np.testing.assert_allclose([f.clean for f in found], [g.clean for g in gaps], rtol=1e-5)


@norms
@either
@pytest.mark.parametrize("rho", [1e-3, 0.7])
def test_the_point_lies_in_the_ball_and_has_the_rise(norm, adaptive, rho):
    params, data = near_minimum()
    w, like = ravel_pytree(params)
    found = searched(rho, norm, adaptive)
    width = np.abs(w) if adaptive else np.ones_like(w)
    assert (found.delta[width == 0] == 0).all()
    assert (width == 0).sum() == adaptive
    u = found.delta[width > 0] / width[width > 0]
    length = np.linalg.norm(u, 2 if norm == "l2" else np.inf)
    assert max(length, found.feasible_norm) <= rho * (1 + 1e-6)
    assert found.feasible_norm == pytest.approx(length, rel=1e-5)
    there = relu(like(w + found.delta), data) - relu(params, data)
    np.testing.assert_allclose(found.rise, there.mean(), rtol=1e-3)


def measured(params, data, adaptive):
    return [
        ball.sam_gap(relu, params, data, 0.1, "linf", adaptive).rise,
        ball.m_sharpness(relu, params, data, 0.1, 12, steps=6, adaptive=adaptive).value,
        ball.average_case(relu, params, data, KEY, radius=0.3, adaptive=adaptive).value,
    ]


@either
def test_only_adaptive_measures_are_blind_to_rescaled_layers(adaptive):
    with jax.enable_x64(True):
        params, data = relu_at(jnp.float64)
        scaled = {"in": params["in"] * 3, "out": params["out"] / 3}
        before, after = (np.array(measured(p, data, adaptive)) for p in (params, scaled))
    if adaptive:
        np.testing.assert_allclose(after, before, rtol=1e-9)
    else:
        assert (np.abs(after / before - 1) > 0.05).all()


@either
def test_the_order_of_hidden_units_does_not_matter(adaptive):
    with jax.enable_x64(True):
        params, data = relu_at(jnp.float64)
        turned = {"in": params["in"][:, ::-1], "out": params["out"][::-1]}
        before, after = (measured(p, data, adaptive)[:2] for p in (params, turned))
    np.testing.assert_allclose(after, before, rtol=1e-9)


@pairs
def test_pruned_weights_never_move(norm, adaptive):
    params, data = near_minimum()
    kept = {"in": jnp.arange(12).reshape(3, 4) % 3 > 0, "out": jnp.array(True)}
    found = searched(0.3, norm, adaptive, mask=kept)
    flat = ravel_pytree({"in": kept["in"], "out": jnp.ones(4, bool)})[0]
    assert (found.delta[~flat] == 0).all()
    assert np.count_nonzero(found.delta) > 4
    held = lambda w: {"in": jnp.where(kept["in"], w["in"], params["in"]), "out": w["out"]}
    composed = lambda w, batch: relu(held(w), batch)
    there = ball.sam_gap(composed, params, data, 0.3, norm, adaptive)
    here = ball.sam_gap(relu, params, data, 0.3, norm, adaptive, mask=kept)
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-7)


@either
@pytest.mark.parametrize("law", ["sigma", "radius"])
def test_the_average_rise_of_a_bowl_is_that_of_its_trace(law, adaptive):
    w = jnp.array([1.0, -2.0, 0.5, 0.0, 3.0, -1.0])
    curved = np.diag(ROOT.T @ ROOT) * (np.array(w) ** 2 if adaptive else 1)
    count = 5 if adaptive and law == "radius" else 6 if law == "radius" else 1
    size = {law: 0.2}
    found = ball.average_case(quadratic, w, NOTHING, KEY, adaptive=adaptive, draws=400, **size)
    assert found.n == 400
    assert abs(found.value - 0.2**2 / 2 * curved.sum() / count) < 4 * found.error
    assert found.error < 0.1 * found.value


def test_the_average_has_a_fourth_power_only_of_a_fourth_derivative():
    quartic = lambda w, batch: jnp.full(len(batch), (w**4).sum())
    sizes = np.array([0.1, 0.2, 0.4])
    with jax.enable_x64(True):
        for losses, fourth in ((quadratic, 0), (quartic, 18)):  # E z^4 = 3, for six weights
            average = lambda s, f=losses: ball.average_case(f, jnp.ones(6), NOTHING, KEY, s)
            values = np.array([average(s).value for s in sizes])
            powers = np.linalg.lstsq(sizes[:, None] ** [2, 4], values)[0]
            np.testing.assert_allclose(sizes[:, None] ** [2, 4] @ powers, values, rtol=1e-9)
            assert powers[1] == pytest.approx(fourth, rel=0.8, abs=1e-9)


@pairs
def test_one_group_of_all_is_the_whole_gap(norm, adaptive):
    gap = ball.sam_gap(relu, *near_minimum(), 0.1, norm, adaptive)
    found = ball.m_sharpness(relu, *near_minimum(), 0.1, 12, norm=norm, adaptive=adaptive)
    np.testing.assert_allclose(found.value, gap.rise, rtol=1e-4)
    assert (found.n, np.isnan(found.error)) == (1, True)


@pytest.mark.parametrize("m, chunk", [(1, 5), (4, 2)])
def test_groups_are_measured_one_by_one(m, chunk):
    params, data = near_minimum()
    w, like = ravel_pytree(params)

    def gap(group):
        mean = lambda w: relu(like(w), group).mean()
        g = jax.grad(mean)(w)
        length = jnp.linalg.norm(g)  # 0 where all units of an example are off
        return jnp.where(length > 0, mean(w + 0.1 * g / length) - mean(w), 0)

    groups = jax.tree.map(lambda a: a.reshape(-1, m, *a.shape[1:]), data)
    alone = family.jit(jax.vmap(gap))(groups)
    found = ball.m_sharpness(relu, params, data, 0.1, m, chunk=chunk)
    expected = np.mean(alone), np.std(alone, ddof=1) / len(alone) ** 0.5, len(alone)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_smaller_groups_and_more_steps_rise_more():
    rise = lambda m, steps=1: ball.m_sharpness(relu, *near_minimum(), 0.1, m, steps).value
    assert rise(12) < rise(4) < rise(1)
    assert rise(4, steps=6) > rise(4)


def test_batches_make_the_same_numbers():
    params, data = near_minimum()
    for measure in (
        functools.partial(ball.sam_gap, rho=0.1),
        functools.partial(ball.worst_case, key=KEY, rho=0.1),
        functools.partial(ball.average_case, key=KEY, sigma=0.1),
    ):
        whole, parts = (measure(relu, params, data, batch_size=size)[:2] for size in (None, 5))
        np.testing.assert_allclose(parts, whole, rtol=1e-4)


@pairs
def test_without_a_slope_sam_sees_nothing(norm, adaptive):
    w = jnp.zeros(6)
    assert ball.sam_gap(quadratic, w, NOTHING, 0.1, norm, adaptive) == (0, 0, 0, 0)
    groups = ball.m_sharpness(quadratic, w, NOTHING, 0.1, 4, norm=norm, adaptive=adaptive)
    assert groups == (0, 0, 3)
    assert ball.worst_case(quadratic, w, NOTHING, KEY, 0.1, norm, adaptive, restarts=1).rise == 0


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_slopes_of_any_size_have_a_direction(scale):
    gap = ball.sam_gap(linear, jnp.ones(3), scale * jnp.array([[2.0, 1.0, -2.0]]), 0.5)
    np.testing.assert_allclose(gap.linear / scale, 1.5, rtol=1e-5)


def test_half_precision_is_searched_in_single():
    params, data = jax.tree.map(lambda a: a.astype(jnp.bfloat16), near_minimum())
    found = ball.worst_case(relu, params, data, KEY, 0.3)
    assert found.delta.dtype == jnp.float32
    assert found.feasible_norm <= 0.3 * (1 + 1e-6)
    assert found.rise == pytest.approx(searched(0.3).rise, rel=0.1)


def test_a_point_without_a_loss_is_none():
    well = lambda w, batch: jnp.where(w @ w < 1.05**2, batch @ w, jnp.nan)
    found = ball.worst_case(well, jnp.array([1.0, 0.0]), jnp.ones((3, 2)), KEY, 0.3, steps=40)
    assert np.isfinite(found.rise)
    assert found.rise > 0
    assert np.isfinite(found.delta).all()


def test_a_new_radius_does_not_recompile():
    for rho in (0.0, 0.1, 1, np.float64(0.2)):
        searched(rho)
        ball.average_case(relu, *near_minimum(), KEY, sigma=rho)
        if rho == 0:
            programs = ball._run._cache_size()
    assert ball._run._cache_size() == programs


def test_products_of_matrices_are_exact():
    seen = []

    def losses(w, batch):
        seen.append(jax.config.jax_default_matmul_precision)
        return linear(w, batch)

    ball.sam_gap(losses, jnp.ones(3), jnp.ones((4, 3)), 0.1)
    assert set(seen) == {"highest"}


@pytest.mark.parametrize(
    "measure, choices, words",
    [
        ("sam_gap", {"rho": -1.0}, "rho=-1.0: must be finite and at least 0"),
        ("sam_gap", {"rho": np.nan}, "rho=nan: must be finite and at least 0"),
        ("sam_gap", {"rho": 1, "norm": "l1"}, "norm='l1': must be one of ['l2', 'linf']"),
        ("sam_gap", {"rho": 1, "batch_size": 0}, "batch_size=0: must be at least 1"),
        ("worst_case", {"rho": -1, "key": KEY}, "rho=-1: must be finite and at least 0"),
        ("worst_case", {"rho": 1, "key": KEY, "steps": 0}, "steps=0: must be at least 1"),
        ("worst_case", {"rho": 1, "key": KEY, "restarts": 0}, "restarts=0: must be at least 1"),
        ("m_sharpness", {"rho": 1, "m": 5}, "m=5: must divide the 12 examples"),
        ("m_sharpness", {"rho": 1, "m": 0}, "m=0: must divide the 12 examples"),
        ("m_sharpness", {"rho": 1, "m": 4, "chunk": 0}, "chunk=0: must be at least 1"),
        ("m_sharpness", {"rho": 1, "m": 4, "norm": "l0"}, "norm='l0': must be one of"),
        ("average_case", {"key": KEY}, "sigma=None, radius=None: exactly one of both"),
        (
            "average_case",
            {"key": KEY, "sigma": 1, "radius": 2},
            "exactly one of both must be given",
        ),
        ("average_case", {"key": KEY, "sigma": -1}, "sigma=-1: must be finite and at least 0"),
        ("average_case", {"key": KEY, "radius": -2}, "radius=-2: must be finite and at least 0"),
        ("average_case", {"key": KEY, "sigma": 1, "draws": 0}, "draws=0: must be at least 1"),
    ],
)
def test_a_wrong_choice_is_named(measure, choices, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        getattr(ball, measure)(quadratic, jnp.zeros(6), NOTHING, **choices)
