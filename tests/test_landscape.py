"""Pictures of a loss against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from family import equal, jit
from samscale.flatness import landscape
from scenes import LINEAR, flat, normal, parabola, squares, tree


@pytest.mark.parametrize("batch_size", [None, 4, 5, 10, 99])
def test_the_mean_loss_is_the_mean_of_all_examples_however_they_are_batched(batch_size):
    w = tree(0)
    value = landscape.mean_loss(squares, w, LINEAR, batch_size)
    np.testing.assert_allclose(value, parabola(flat(w)), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_line_through_a_quadratic_is_its_parabola(batch_size):
    w, d, at = tree(0), tree(5), [-1.0, 0.0, 0.5, 2.0]
    values = landscape.line(squares, w, d, LINEAR, at, batch_size)
    expected = [parabola(flat(w) + s * flat(d)) for s in at]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_plane_through_a_quadratic_is_its_paraboloid(batch_size):
    w, d, e = tree(0), tree(5), tree(6)
    first, second = [-1.0, 0.0, 2.0], [0.0, 0.5]
    values = landscape.plane(squares, w, (d, e), LINEAR, first, second, batch_size)
    at = lambda s, t: parabola(flat(w) + s * flat(d) + t * flat(e))
    np.testing.assert_allclose(values, [[at(s, t) for t in second] for s in first], rtol=1e-5)


def test_pictures_leave_the_parameters_where_they_are():
    w, d = tree(0), tree(5)
    before = jax.tree.map(np.array, (w, d))
    landscape.line(squares, w, d, LINEAR, [0.0, 1.0, 2.0, 3.0])
    landscape.plane(squares, w, (d, w), LINEAR, [0.0, 1.0, 2.0], [0.0, 1.0])
    equal(before, (w, d))


def test_other_parameters_directions_data_and_positions_share_one_program():
    traced = []

    def losses(params, batch):
        traced.append(None)
        return squares(params, batch)

    one = landscape.line(losses, tree(0), tree(1), LINEAR, [0.0, 1.0])
    known, other = len(traced), (LINEAR[0], LINEAR[1] + 1)
    two = landscape.line(losses, tree(2), tree(3), other, [1.0, 3.0])
    assert len(traced) == known
    assert not np.allclose(one, two)


def test_a_direction_is_normal_and_of_the_parameters_shapes_and_dtypes():
    params = {"a": jnp.zeros((40, 50)), "b": jnp.zeros((40, 50)), "c": jnp.zeros(3, jnp.bfloat16)}
    drawn = jit(landscape.direction)(jax.random.key(0), params)
    assert jax.tree.map(lambda w: (w.shape, w.dtype), drawn) == jax.tree.map(
        lambda w: (w.shape, w.dtype), params
    )
    a, b = flat(drawn["a"]), flat(drawn["b"])
    assert abs(a.mean()) < 0.1  # four and more standard errors
    assert abs(a.std() - 1) < 0.1
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


@pytest.mark.parametrize("vectors", ["zero", "whole"])
def test_each_filter_of_a_normalized_direction_has_the_norm_of_its_filter(vectors):
    params = {"conv": normal(0, 2, 3, 4, 5), "dense": 7 * normal(1, 3, 4), "bias": normal(2, 4)}
    drawn = jit(landscape.direction)(jax.random.key(0), params)
    made = jit(landscape.filter_normalized, static_argnums=2)(drawn, params, vectors)
    for name in ("conv", "dense"):
        filters = lambda w: np.asarray(w).reshape(-1, w.shape[-1]).T
        norms = lambda w, filters=filters: np.linalg.norm(filters(w), axis=1)
        np.testing.assert_allclose(norms(made[name]), norms(params[name]), rtol=1e-5)
        cosines = (filters(made[name]) * filters(drawn[name])).sum(1)
        np.testing.assert_allclose(cosines, norms(made[name]) * norms(drawn[name]), rtol=1e-5)
    if vectors == "zero":
        assert not made["bias"].any()
    else:
        scale = np.linalg.norm(params["bias"]) / np.linalg.norm(drawn["bias"])
        np.testing.assert_allclose(made["bias"], scale * drawn["bias"], rtol=1e-5)


def test_filters_of_zeros_and_directions_of_zero_give_zero_and_not_nan():
    w = jnp.ones((2, 3)).at[:, 0].set(0)
    d = jnp.ones((2, 3)).at[:, 1].set(0)
    made = landscape.filter_normalized(d, w)
    np.testing.assert_allclose(made, jnp.zeros((2, 3)).at[:, 2].set(1), rtol=1e-6)


def test_a_trajectory_in_a_plane_is_that_plane():
    corner, d, e = tree(0), tree(5), tree(6)
    steps = normal(7, 6, 2)
    point = lambda s: jax.tree.map(lambda w, d, e: w + s[0] * d + s[1] * e, corner, d, e)
    points = [point(s) for s in steps]
    found = landscape.principal_plane(points)
    first, second = map(flat, found.directions)
    gram = [[first @ first, first @ second], [second @ first, second @ second]]
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-6)
    for w, (s, t) in zip(points, found.coordinates, strict=True):
        np.testing.assert_allclose(flat(found.origin) + s * first + t * second, flat(w), atol=1e-5)
    equal(found.origin, points[-1])
    np.testing.assert_allclose(found.coordinates[-1], 0, atol=1e-6)
    np.testing.assert_allclose([found.fractions[:2].sum(), found.fractions.sum()], 1, rtol=1e-6)


def test_the_principal_plane_is_that_of_the_singular_values_about_the_origin():
    points, origin = [tree(i) for i in range(5)], tree(9)
    found = landscape.principal_plane(points, origin)
    rows = np.stack([flat(w) - flat(origin) for w in points])
    _, lengths, right = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(found.fractions, lengths**2 / (lengths**2).sum(), rtol=1e-6)
    for k, one in enumerate(map(flat, found.directions)):
        assert abs(one @ right[k]) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(found.coordinates[:, k], rows @ one, atol=1e-5)
        column = found.coordinates[:, k]
        assert column[np.abs(column).argmax()] > 0


def test_a_straight_trajectory_has_no_plane():
    w, d = tree(0), tree(5)
    points = [jax.tree.map(lambda w, d, s=s: w + s * d, w, d) for s in (0.0, 0.1, 0.7, 3.0)]
    with pytest.raises(ValueError, match="trajectory: its 4 points span no plane"):
        landscape.principal_plane(points)
    with pytest.raises(ValueError, match="trajectory: its 1 points span no plane"):
        landscape.principal_plane([w], d)


W, TALL, KEY = tree(0), {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(3)}, jax.random.key(0)
scaled = lambda tree, factor: jax.tree.map(lambda w: w * np.float32(factor), tree)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: landscape.line(squares, W, TALL, LINEAR, [0]), r"direction\['kernel'\]: .*2, 3"),
        (lambda: landscape.line(squares, W, {}, LINEAR, [0]), r"direction\['bias'\]: .* absent"),
        (lambda: landscape.line(squares, W, W, LINEAR, []), r"at: must be a list .* \(0,\)"),
        (lambda: landscape.line(squares, W, W, LINEAR, [0], 0), "batch_size=0: must be at least"),
        (lambda: landscape.line(squares, W, W, LINEAR[:0], [0]), "data: arrays must have"),
        (lambda: landscape.plane(squares, W, (W,), LINEAR, [0], [0]), "directions: .* not 1"),
        (lambda: landscape.plane(squares, W, (W, TALL), LINEAR, [0], [0]), r"directions\[1\]"),
        (lambda: landscape.plane(squares, W, (W, W), LINEAR, [0], 1), "at_second: must be a list"),
        (lambda: landscape.filter_normalized(W, W, "each"), "vectors='each': must be one of"),
        (lambda: landscape.filter_normalized(TALL, W), r"direction\['kernel'\]"),
        (lambda: landscape.principal_plane([]), "trajectory: must hold points"),
        (lambda: landscape.principal_plane([scaled(W, np.nan), W, W]), "trajectory: its numbers"),
        (lambda: landscape.principal_plane([TALL, W]), r"trajectory\[0\]\['kernel'\]"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
