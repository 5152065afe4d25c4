"""The highest point of balls around w, against closed forms, bounds and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hills import KEY, NOTHING, ROOT, linear, near_minimum, quadratic, relu
from samscale.flatness import ball

pytestmark = pytest.mark.usefixtures("in_float64")
norms = pytest.mark.parametrize("norm", sorted(ball.NORMS))
pairs = pytest.mark.parametrize("norm, adaptive", [("l2", False), ("linf", True)])
either = pytest.mark.parametrize("adaptive", [False, True])
RADII = (0.0, 0.01, 0.1, 0.5)


def searched(rho=0.1, norm="l2", adaptive=False, **choices):
    return ball.worst_case(relu, *near_minimum(), KEY, rho, norm, adaptive, **choices)


def test_a_bowl_rises_by_half_its_largest_eigenvalue_times_the_squared_radius():
    found = ball.worst_case(quadratic, jnp.zeros(6), NOTHING, KEY, 0.3, steps=100, restarts=3)
    values, vectors = np.linalg.eigh((ROOT.T @ ROOT).astype(float))
    np.testing.assert_allclose(found.rise, values[-1] * 0.3**2 / 2, rtol=1e-12)
    assert abs(found.delta @ vectors[:, -1]) == pytest.approx(0.3, rel=1e-6)
    assert found.clean == 0


def test_a_direction_to_start_from_is_taken_up_the_slope():
    values, vectors = np.linalg.eigh((ROOT.T @ ROOT).astype(float))
    top, other = jnp.asarray(vectors[:, -1]), jnp.asarray(vectors[:, 1])
    search = lambda w, v, rho=0.3: ball.worst_case(
        quadratic, w, NOTHING, KEY, rho, steps=1, restarts=2, toward=v
    )
    found = search(jnp.zeros(6), top)
    np.testing.assert_allclose(found.rise, values[-1] * 0.3**2 / 2, rtol=1e-9)
    w = other + 1e-3 * top  # SAM's point is along the other
    up, down, along = (search(w, v, 3.0).rise for v in (top, -top, other))
    np.testing.assert_allclose(down, up, rtol=1e-9)
    assert up > 1.01 * along


def test_a_bowl_rises_most_at_a_corner_of_the_cube():
    found = ball.worst_case(quadratic, jnp.zeros(6), NOTHING, KEY, 0.3, "linf", restarts=12)
    corners = 0.6 * (np.indices((2,) * 6).reshape(6, -1).T - 0.5)
    highest = np.einsum("ni,ij,nj->n", corners, ROOT.T @ ROOT, corners).max() / 2
    np.testing.assert_allclose(found.rise, highest, rtol=1e-12)


def test_the_best_of_the_cube_may_lie_inside():
    diagonal = lambda w, batch: jnp.full(len(batch), w**2 @ jnp.array([3.0, 1.0, -2.0]) / 2)
    found = ball.worst_case(diagonal, jnp.zeros(3), NOTHING, KEY, 0.5, "linf", steps=100)
    np.testing.assert_allclose(found.rise, 0.5**2 * (3 + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(jnp.abs(found.delta), [0.5, 0.5, 0], atol=1e-3)


@norms
@either
def test_a_slope_rises_by_the_dual_norm(norm, adaptive):
    w, x = jnp.array([2.0, 0.0, -3.0]), jnp.array([[1.0, 5.0, 2.0], [3.0, 1.0, -4.0]])
    g = x.mean(0) * (jnp.abs(w) if adaptive else 1)
    expected = 0.2 * jnp.linalg.norm(g, 2 if norm == "l2" else 1)
    gap = ball.sam_gap(linear, w, x, 0.2, norm, adaptive)
    found = ball.worst_case(linear, w, x, KEY, 0.2, norm, adaptive, steps=3, restarts=1)
    np.testing.assert_allclose([gap.rise, gap.linear, found.rise], expected, rtol=1e-12)
    np.testing.assert_allclose([gap.rest, gap.clean], [0, x.mean(0) @ w], atol=1e-12)


def test_the_rest_of_a_gap_is_the_curvature_along_the_slope():
    w = jnp.arange(1.0, 7)
    a = ROOT.T @ ROOT
    gap, g = ball.sam_gap(quadratic, w, NOTHING, 0.5), a @ w
    np.testing.assert_allclose(gap.rest, 0.5**2 / 2 * g @ a @ g / (g @ g), rtol=1e-9)
    np.testing.assert_allclose(gap.clean, w @ a @ w / 2, rtol=1e-12)


@norms
@either
def test_no_point_is_below_w_or_that_of_sam_and_larger_balls_rise_more(norm, adaptive):
    gap = lambda rho: ball.sam_gap(relu, *near_minimum(), rho, norm, adaptive)
    gaps, found = zip(*((gap(r), searched(r, norm, adaptive)) for r in RADII), strict=True)
    rises = np.array([f.rise for f in found])
    assert abs(rises[0]) <= 1e-15 * found[0].clean
    assert (rises >= 0).all()
    assert (np.diff(rises) > 0).all()
    assert (rises >= [g.rise * (1 - 1e-12) for g in gaps]).all()
    assert rises[-1] > 1.02 * gaps[-1].rise  # more than one step is of use
    np.testing.assert_allclose([f.clean for f in found], [g.clean for g in gaps], rtol=1e-12)


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
    assert max(length, found.feasible_norm) <= rho * (1 + 1e-12)
    assert found.feasible_norm == pytest.approx(length, rel=1e-9)
    there = relu(like(w + found.delta), data) - relu(params, data)
    np.testing.assert_allclose(found.rise, there.mean(), rtol=1e-9)


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
    np.testing.assert_allclose(here, there, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_slopes_of_any_size_have_a_direction(scale):
    slope = jnp.array([[2.0, 1.0, -2.0]], jnp.float32)  # whose squares leave its range
    gap = ball.sam_gap(linear, jnp.ones(3, jnp.float32), scale * slope, 0.5)
    np.testing.assert_allclose(gap.linear / scale, 1.5, rtol=1e-6)


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
