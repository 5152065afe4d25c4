import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from family import close, equal, jit
from samscale.flatness import landscape, paths
from samscale.models.mlp import MLP

flat = lambda tree: np.concatenate([np.ravel(w) for w in jax.tree.leaves(tree)]).astype(float)
inner = lambda a, b: float(flat(a) @ flat(b))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tree(seed):
    return {"kernel": normal(seed, 2, 3), "bias": normal(seed + 100, 3)}


LINEAR = (normal(1, 10, 9), normal(2, 10))  # ten examples of a linear regression in nine weights


def squares(params, batch):
    """1/2 (x'w - y)^2: convex, and a parabola along every line."""
    x, y = batch
    return 0.5 * (x @ ravel_pytree(params)[0] - y) ** 2


def parabola(w):
    x, y = (np.asarray(a, np.float64) for a in LINEAR)
    return 0.5 * ((x @ w - y) ** 2).mean()


def wells(w, batch):
    """(w^2 - 1)^2: minima at -1 and 1, and a bump of height 1 between them."""
    return (w**2 - 1) ** 2 + 0 * batch


def ring(w, centres):
    """Minima are (about) a circle of radius 1 around the origin, with a bump inside."""
    return (((w[None] - centres) ** 2).sum(-1) - 1) ** 2


NETWORK = MLP((5, 4), 2)
INPUTS = normal(3, 12, 3)


def network(params, x):
    return NETWORK.apply({"params": params}, x)


def network_losses(params, batch):
    x, y = batch
    return ((network(params, x) - y) ** 2).sum(-1)


def mlp(seed, *widths):
    shapes = enumerate(itertools.pairwise(widths))
    part = lambda i, *shape: normal(1000 * seed + i, *shape)
    return {
        f"Dense_{i}": {"kernel": part(i, n, m), "bias": part(i + 50, m)} for i, (n, m) in shapes
    }


def shuffled(params, seed):
    rng = np.random.default_rng(seed)
    widths = [len(params[f"Dense_{i}"]["bias"]) for i in range(len(params) - 1)]
    return paths.permuted(params, [rng.permutation(width) for width in widths])


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


@pytest.mark.parametrize("batch_size", [None, 4])
def test_an_interpolation_is_the_parabola_between_its_ends(batch_size):
    a, b, at = tree(0), tree(5), [0.0, 0.3, 1.0, 1.5]
    values = paths.interpolation(squares, a, b, LINEAR, at, batch_size)
    expected = [parabola((1 - t) * flat(a) + t * flat(b)) for t in at]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_a_convex_loss_has_no_barrier():
    assert abs(float(paths.barrier(squares, tree(0), tree(5), LINEAR))) <= 1e-6


def test_the_barrier_of_two_wells_is_what_rises_above_the_line_between_the_ends():
    w, data = jnp.array, jnp.zeros(3)
    np.testing.assert_allclose(paths.barrier(wells, w(-1.0), w(1.0), data), 1, rtol=1e-6)
    t = np.linspace(0, 1, 25)
    rises = ((-1 + 1.5 * t) ** 2 - 1) ** 2 - t * (0.5**2 - 1) ** 2  # from -1 to the slope at 1/2
    np.testing.assert_allclose(paths.barrier(wells, w(-1.0), w(0.5), data), rises.max(), rtol=1e-6)
    at = np.array([0.1, 0.9])
    rises = (((2 * at - 1) ** 2 - 1) ** 2).max()
    np.testing.assert_allclose(paths.barrier(wells, w(-1.0), w(1.0), data, at), rises, rtol=1e-5)


def test_the_barrier_of_losses_that_are_not_finite_is_nan():
    losses = lambda w, batch: jnp.sqrt(jnp.abs(w) - 0.5) + batch
    assert np.isnan(paths.barrier(losses, jnp.array(-1.0), jnp.array(1.0), jnp.zeros(2)))


def test_permuting_hidden_units_leaves_the_function_as_it_is():
    params = mlp(1, 3, 5, 4, 2)
    other = shuffled(params, 0)
    made = jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), INPUTS)["params"])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)
    assert not np.array_equal(other["Dense_1"]["kernel"], params["Dense_1"]["kernel"])
    close(network(params, INPUTS), network(other, INPUTS))


@pytest.mark.parametrize("seed", range(5))
def test_alignment_undoes_a_permutation(seed):
    params = mlp(seed, 3, 8, 7, 6, 2)
    equal(paths.aligned(params, shuffled(params, seed)), params)


def test_alignment_removes_the_barrier_between_permutations_of_one_network():
    a = mlp(1, 3, 5, 4, 2)
    b, data = shuffled(a, 0), (INPUTS, network(a, INPUTS))
    assert paths.barrier(network_losses, a, b, data) > 0.1
    assert abs(paths.barrier(network_losses, a, paths.aligned(a, b), data)) <= 1e-6


def test_alignment_of_one_hidden_layer_is_the_best_of_all_permutations():
    for seed in range(5):
        a, b = mlp(seed, 2, 4, 3), mlp(seed + 50, 2, 4, 3)
        every = [inner(a, paths.permuted(b, [p])) for p in itertools.permutations(range(4))]
        assert inner(a, paths.aligned(a, b)) == pytest.approx(max(every), rel=1e-6)


def test_no_layer_of_an_alignment_gains_by_a_permutation_of_its_own():
    for seed in range(5):
        a, b = mlp(seed, 2, 4, 4, 4, 2), mlp(seed + 50, 2, 4, 4, 4, 2)
        made = paths.aligned(a, b)
        for layer, p in itertools.product(range(3), itertools.permutations(range(4))):
            orders = [np.arange(4)] * 3
            orders[layer] = p
            assert inner(a, paths.permuted(made, orders)) <= inner(a, made) + 1e-4


def test_the_ends_of_a_bezier_curve_are_the_given_ones_and_its_middle_is_what_it_says():
    a, b, middle = tree(0), tree(5), tree(6)
    values = paths.along_bezier(squares, a, middle, b, LINEAR, [0.0, 0.25, 1.0], batch_size=4)
    inside = 0.5625 * flat(a) + 0.375 * flat(middle) + 0.0625 * flat(b)
    expected = [parabola(flat(a)), parabola(inside), parabola(flat(b))]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_trained_curve_goes_around_the_bump_that_the_line_goes_over(batch_size):
    a, b = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
    centres = 0.05 * normal(8, 10, 2) - jnp.array([[0.0, 0.1]])
    before = jax.tree.map(np.array, (a, b))
    middle = paths.bezier(ring, a, b, centres, jax.random.key(0), 400, 0.05, batch_size)
    at = np.linspace(0, 1, 25)
    curve = paths.along_bezier(ring, a, middle, b, centres, at)
    line = paths.interpolation(ring, a, b, centres, at)
    assert line.max() > 0.8
    assert curve.max() < 0.15
    equal(before, (a, b))


def test_a_curve_is_drawn_anew_with_another_key_and_alike_with_the_same():
    a, b = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0])
    centres = 0.05 * normal(8, 10, 2) - jnp.array([[0.0, 0.1]])
    train = lambda seed: paths.bezier(ring, a, b, centres, jax.random.key(seed), 400, 0.05, 4)
    equal(train(0), train(0))
    assert not np.array_equal(train(0), train(1))


def test_training_weighs_all_examples_and_all_of_the_curve_alike():
    losses = lambda w, y: (w - y) ** 2
    y, end = np.full(10, 2, np.float32), jnp.zeros(())
    y[0] = 0
    middle = paths.bezier(losses, end, end, y, jax.random.key(0), 3000, 0.01, batch_size=2)
    best = y.mean() * (1 / 3) / (2 / 15)  # the mean of 2t(1 - t) over that of its square
    np.testing.assert_allclose(middle, best, rtol=0.05)


W, TALL, KEY = tree(0), {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(3)}, jax.random.key(0)
DEEP = mlp(0, 2, 4, 3)
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
        (lambda: paths.interpolation(squares, W, TALL, LINEAR, [0]), r"b\['kernel'\]"),
        (lambda: paths.barrier(squares, W, W, LINEAR, [[0]]), r"at: must be .* \(1, 1\)"),
        (lambda: paths.along_bezier(squares, W, TALL, W, LINEAR, [0]), r"middle\['kernel'\]"),
        (lambda: paths.along_bezier(squares, W, W, TALL, LINEAR, [0]), r"b\['kernel'\]"),
        (lambda: paths.bezier(squares, W, TALL, LINEAR, KEY), r"b\['kernel'\]"),
        (lambda: paths.bezier(squares, W, W, LINEAR, KEY, steps=0), "steps=0: must be positive"),
        (lambda: paths.bezier(squares, W, W, LINEAR, KEY, learning_rate=-1.0), "learning_rate=-1"),
        (lambda: paths.bezier(squares, W, W, LINEAR, KEY, batch_size=0), "batch_size=0: must be"),
        (lambda: paths.permuted(DEEP, []), "orders: must be 1, one a hidden layer, not 0"),
        (lambda: paths.permuted(DEEP, [[0, 1, 1, 2]]), r"orders\[0\]: must be a permutation of 4"),
        (lambda: paths.aligned(W, W), r"a: must be the parameters of an MLP.* not \['bias'"),
        (lambda: paths.aligned(None, DEEP), "a: must be .*, not NoneType"),
        (lambda: paths.aligned({"Dense_0": W, "Dense_1": W}, DEEP), "a: must be .* not Dense_1"),
        (lambda: paths.aligned({"Dense_0": {"kernel": W["kernel"]}}, DEEP), "a: .* not Dense_0"),
        (lambda: paths.aligned(DEEP, mlp(0, 2, 5, 3)), r"b\['Dense_0'\]\['bias'\]"),
        (lambda: paths.aligned(DEEP, scaled(DEEP, np.inf)), "b: its numbers must be finite"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
