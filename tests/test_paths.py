"""Ways between two solutions: straight, bent, and straight after units are matched."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from family import close, equal
from samscale.flatness import paths
from samscale.models.mlp import MLP
from scenes import LINEAR, flat, normal, parabola, squares, tree

inner = lambda a, b: float(flat(a) @ flat(b))


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
