"""Losses are sums and counts: what is missing or padded biases no mean."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale import losses, tasks
from samscale.config import Config

N, K = 7, 4
RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(N, K)).astype(np.float32)
CLASSES = np.array([0, 3, 1, 1, 2, 0, 3], np.int32)
TARGETS = RNG.normal(size=(N, K)).astype(np.float32)
YES_NO = RNG.integers(0, 2, (N, K)).astype(np.float32)
WEIGHT = np.array([1, 2, 0.5, 1, 1, 3, 0.25], np.float32)
ONES = np.ones(N, np.float32)
KEY = jax.random.key(0)

CASES = {  # every loss, with the labels it knows
    "cross_entropy": (tasks.cross_entropy, CLASSES),
    "squared": (tasks.squared, CLASSES),
    "squared on real targets": (tasks.squared, TARGETS),
    "binary_cross_entropy": (tasks.binary_cross_entropy, YES_NO),
}
every = pytest.mark.parametrize("loss, y", CASES.values(), ids=CASES)


def close(received, expected):
    compare = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, received, expected)


def same(received, expected):
    jax.tree.map(np.testing.assert_array_equal, received, expected)


def gradient(loss, outputs, y, weight):
    """Of the mean, as a step takes it."""
    return jax.grad(lambda o: tasks.means(loss(o, y, weight))["loss"])(outputs)


def by_hand(losses, right):
    """The sums of a loss over classes, from one loss and one truth value an example."""
    return {
        "loss": (WEIGHT * losses).sum(),
        "accuracy": (WEIGHT * right).sum(),
        "count": WEIGHT.sum(),
    }


def test_every_loss_is_tested():
    assert {loss for loss, _ in CASES.values()} == set(tasks.LOSSES.values())


def test_cross_entropy_is_minus_the_log_of_the_probability_of_the_class():
    o = OUTPUTS.astype(np.float64)
    probability = np.exp(o) / np.exp(o).sum(-1, keepdims=True)
    losses = -np.log(probability[np.arange(N), CLASSES])
    expected = by_hand(losses, o.argmax(-1) == CLASSES)
    close(tasks.cross_entropy(OUTPUTS, CLASSES, WEIGHT), expected)


def test_smoothing_spreads_a_share_of_the_label_over_all_classes():
    outputs = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
    y, share = np.array([2, 1]), 0.3
    logs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    target = (1 - share) * np.eye(3)[y] + share / 3
    sums = tasks.cross_entropy(outputs, y, np.ones(2, np.float32), smoothing=share)
    np.testing.assert_allclose(sums["loss"], -(target * logs).sum(), rtol=1e-6)
    assert sums["accuracy"] == 1


def test_labels_are_smoothed_in_training_alone():
    task = tasks.build(Config(num_neurons=(4,), label_smoothing=0.3))
    sharp = tasks.build(Config(num_neurons=(4,)))
    params, stats = task.init(jax.random.key(0))
    batch = {name: array[:8] for name, array in task.train.items()}
    losses = lambda task, train: task.loss(params, stats, batch, jax.random.key(1), train)[0][
        "loss"
    ]
    assert losses(task, False) == losses(sharp, False)
    assert losses(task, True) != losses(sharp, True)


def test_squared_on_classes_is_the_distance_to_the_one_hot_vector():
    losses = ((OUTPUTS - np.eye(K)[CLASSES]) ** 2).sum(-1)
    expected = by_hand(losses, OUTPUTS.argmax(-1) == CLASSES)
    close(tasks.squared(OUTPUTS, CLASSES, WEIGHT), expected)


def test_squared_on_real_targets_is_the_distance_and_has_no_accuracy():
    losses = ((OUTPUTS - TARGETS) ** 2).sum(-1)
    expected = {"loss": (WEIGHT * losses).sum(), "count": WEIGHT.sum()}
    close(tasks.squared(OUTPUTS, TARGETS, WEIGHT), expected)


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 2, 3)])
def test_squared_sums_over_outputs_of_any_shape(shape):
    outputs, targets = (RNG.normal(size=shape).astype(np.float32) for _ in range(2))
    losses = ((outputs - targets) ** 2).reshape(N, -1).sum(-1)
    close(tasks.squared(outputs, targets, WEIGHT)["loss"], (WEIGHT * losses).sum())


def test_binary_cross_entropy_is_that_of_each_label_and_counts_labels():
    probability = 1 / (1 + np.exp(-OUTPUTS.astype(np.float64)))
    losses = -np.log(np.where(YES_NO == 1, probability, 1 - probability))
    expected = {
        "loss": (WEIGHT[:, None] * losses).sum(),
        "accuracy": (WEIGHT[:, None] * ((probability > 0.5) == (YES_NO == 1))).sum(),
        "count": K * WEIGHT.sum(),
    }
    close(tasks.binary_cross_entropy(OUTPUTS, YES_NO, WEIGHT), expected)


def test_yes_and_no_may_be_whole_numbers():
    close(
        tasks.binary_cross_entropy(OUTPUTS, YES_NO.astype(np.int32), WEIGHT),
        tasks.binary_cross_entropy(OUTPUTS, YES_NO, WEIGHT),
    )


@every
def test_sums_over_ragged_parts_add_to_those_of_the_whole(loss, y):
    cuts = [slice(0, 3), slice(3, 4), slice(4, N)]
    parts = [loss(OUTPUTS[c], y[c], WEIGHT[c]) for c in cuts]
    total = jax.tree.map(lambda *xs: sum(xs), *parts)
    close(tasks.means(total), tasks.means(loss(OUTPUTS, y, WEIGHT)))
    weighed = [np.array(tasks.means(p)["loss"] * p["count"]) for p in parts]
    close(sum(weighed) / total["count"], tasks.means(loss(OUTPUTS, y, WEIGHT))["loss"])


@every
def test_a_weight_counts_an_example_as_often_as_it_says(loss, y):
    times = np.array([1, 2, 0, 3, 1, 0, 1])
    repeated = loss(np.repeat(OUTPUTS, times, 0), np.repeat(y, times, 0), np.ones(8, np.float32))
    close(loss(OUTPUTS, y, np.float32(times)), repeated)


def padded(y, garbage):
    """Outputs, labels and weights with three rows more, of weight zero."""
    outputs = np.concatenate([OUTPUTS, np.full((3, K), garbage, np.float32)])
    return outputs, np.concatenate([y, y[:3]]), np.concatenate([WEIGHT, np.zeros(3, np.float32)])


@every
@pytest.mark.parametrize("garbage", [1e4, np.inf, -np.inf, np.nan])
def test_padded_rows_change_no_sum_whatever_they_hold(loss, y, garbage):
    close(loss(*padded(y, garbage)), loss(OUTPUTS, y, WEIGHT))


@every
@pytest.mark.parametrize("garbage", [1e4, np.inf, -np.inf, np.nan])
def test_padded_rows_change_no_gradient_whatever_they_hold(loss, y, garbage):
    received = gradient(loss, *padded(y, garbage))
    close(received[:N], gradient(loss, OUTPUTS, y, WEIGHT))
    same(received[N:], np.zeros((3, K)))


def with_gaps(y):
    gaps = np.zeros((N, K), bool)
    gaps[0, 1] = gaps[2, 0] = gaps[2, 3] = gaps[4] = True  # the whole of row 4
    return np.where(gaps, np.nan, y).astype(np.float32), gaps


def test_missing_yes_or_no_labels_add_neither_loss_nor_accuracy_nor_count():
    y, gaps = with_gaps(YES_NO)
    there = np.where(gaps, 0, WEIGHT[:, None])
    losses = np.logaddexp(0, np.where(YES_NO == 1, -OUTPUTS, OUTPUTS).astype(np.float64))
    expected = {
        "loss": (there * losses).sum(),
        "accuracy": (there * ((OUTPUTS > 0) == (YES_NO == 1))).sum(),
        "count": there.sum(),
    }
    close(tasks.binary_cross_entropy(OUTPUTS, y, WEIGHT), expected)


def test_missing_real_targets_add_no_loss():
    y, gaps = with_gaps(TARGETS)
    losses = np.where(gaps, 0, (OUTPUTS - TARGETS) ** 2).sum(-1)
    close(tasks.squared(OUTPUTS, y, WEIGHT)["loss"], (WEIGHT * losses).sum())


def test_a_row_without_any_real_target_is_not_counted():
    y, gaps = with_gaps(TARGETS)
    rest = ~gaps.all(-1)
    received = tasks.squared(OUTPUTS, y, WEIGHT)
    close(received, tasks.squared(OUTPUTS[rest], y[rest], WEIGHT[rest]))


@pytest.mark.parametrize(
    "loss, labels", [(tasks.binary_cross_entropy, YES_NO), (tasks.squared, TARGETS)]
)
def test_the_gradient_of_missing_labels_is_zero_and_not_nan(loss, labels):
    y, gaps = with_gaps(labels)
    received = np.asarray(gradient(loss, OUTPUTS, y, WEIGHT))
    assert not received[gaps].any()
    assert np.isfinite(received).all()
    assert received[~gaps].all()


def test_means_divide_by_the_count_and_leave_it_out():
    assert tasks.means({"loss": 6.0, "accuracy": 3.0, "count": 4.0}) == {
        "loss": 1.5,
        "accuracy": 0.75,
    }


def test_means_over_nothing_are_zero_and_so_is_their_gradient():
    assert tasks.means({"loss": 0.0, "count": 0.0}) == {"loss": 0.0}
    for loss, y in CASES.values():
        same(gradient(loss, OUTPUTS, y, 0 * ONES), np.zeros((N, K)))


@every
@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_weights_are_relative_so_their_scale_leaves_the_means_alone(loss, y, scale):
    scaled = loss(OUTPUTS, y, np.float32(scale) * WEIGHT)
    close(tasks.means(scaled), tasks.means(loss(OUTPUTS, y, WEIGHT)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_exact_cross_entropy_is_the_usual_one(smoothing):
    z, batch = jax.random.normal(KEY, (7, 4)), {"y": jnp.arange(7) % 4}
    mine = losses.exact_cross_entropy(z, batch, smoothing)
    usual = losses.cross_entropy(z, batch["y"], jnp.ones(7), smoothing)["loss"]
    assert float(mine.sum()) == pytest.approx(float(usual), rel=1e-6)


def test_its_curvature_stays_right_however_small_the_loss():
    batch = {"y": jnp.array([0])}
    exact_loss = lambda z: losses.exact_cross_entropy(z[None], batch)[0]
    usual = lambda z: losses.cross_entropy(z[None], batch["y"], jnp.ones(1))["loss"]
    z = jnp.array([12.0, 0.3, -0.5])
    with jax.enable_x64(True):
        exact = np.asarray(jax.hessian(usual)(jnp.asarray(z, jnp.float64)))
    error = lambda f: np.abs(np.asarray(jax.hessian(f)(z)) - exact).max() / np.abs(exact).max()
    assert error(exact_loss) < 1e-6
    assert error(usual) > 1e-3


def test_squared_errors_leave_out_what_is_missing():
    z = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(
        losses.squared_errors(z, {"y": jnp.array([[0.0, jnp.nan], [3.0, 3.0]])}), [1, 1]
    )
    np.testing.assert_allclose(losses.squared_errors(z, {"y": jnp.array([1, 0])}), [2, 20])


def refused(words, call):
    with pytest.raises(ValueError, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)


RANDOM = RNG.normal(size=(N, 1)).astype(np.float32)
EITHER = [lambda f: f, jax.jit]


@pytest.mark.parametrize("run", EITHER)
@pytest.mark.parametrize("loss", [tasks.squared, tasks.binary_cross_entropy])
def test_an_axis_of_length_one_at_the_end_may_be_left_out_on_either_side(loss, run):
    y = (RANDOM > 0).astype(np.float32)
    column = loss(RANDOM, y, WEIGHT)
    for outputs, targets in ((RANDOM, y[:, 0]), (RANDOM[:, 0], y), (RANDOM[:, 0], y[:, 0])):
        close(run(loss)(outputs, targets, WEIGHT), column)
    assert tasks.squared(y, y[:, 0], ONES)["loss"] == 0
    close(losses.squared_errors(RANDOM, {"y": y[:, 0]}), ((RANDOM - y) ** 2)[:, 0])


@pytest.mark.parametrize("run", EITHER)
@pytest.mark.parametrize(
    "loss, outputs, y, weight, words",
    [
        (tasks.squared, OUTPUTS, TARGETS[:, 0], ONES, r"y must be shaped as outputs, \(7, 4\)"),
        (tasks.squared, OUTPUTS[:, 0], TARGETS, ONES, r"y must be shaped as outputs, \(7,\)"),
        (tasks.squared, OUTPUTS, TARGETS[:1], ONES, r"y must be shaped as outputs"),
        (tasks.squared, OUTPUTS, TARGETS.T, ONES, r"y must be shaped as outputs"),
        (tasks.squared, OUTPUTS, TARGETS, ONES[:, None], r"weight must be shaped \(7,\)"),
        (tasks.squared, OUTPUTS, TARGETS, 1.0, r"weight must be shaped \(7,\)"),
        (tasks.squared, OUTPUTS, TARGETS, ONES[:3], r"weight must be shaped \(7,\)"),
        (tasks.squared, OUTPUTS, TARGETS, np.ones((N, K)), r"weight must be shaped \(7,\)"),
        (tasks.squared, OUTPUTS[:, 0], CLASSES, ONES, "real targets must be floats"),
        (tasks.squared, OUTPUTS, np.ones((N, K), int), ONES, "real targets must be floats"),
        (tasks.squared, OUTPUTS, TARGETS + 1j, ONES, "y must hold real numbers, not complex64"),
        (tasks.cross_entropy, OUTPUTS, CLASSES[:, None], ONES, r"without the last axis, not"),
        (tasks.cross_entropy, OUTPUTS, CLASSES[:1], ONES, r"without the last axis, not"),
        (tasks.cross_entropy, OUTPUTS, np.eye(K)[CLASSES], ONES, "whole numbers.*not float"),
        (tasks.cross_entropy, OUTPUTS, np.float32(CLASSES), ONES, "whole numbers.*not float32"),
        (tasks.cross_entropy, OUTPUTS, CLASSES, ONES[:, None], r"weight must be shaped \(7,\)"),
        (tasks.binary_cross_entropy, OUTPUTS, YES_NO[:, 0], ONES, "y must be shaped as outputs"),
        (tasks.binary_cross_entropy, OUTPUTS, YES_NO, ONES[:, None], "weight must be shaped"),
    ],
)
def test_what_would_broadcast_is_refused_by_name(loss, outputs, y, weight, words, run):
    if isinstance(weight, float) and run is jax.jit:
        weight = np.float32(weight)
    refused(f"^{loss.__name__}: .*{words}", lambda: run(loss)(outputs, y, weight))


def test_labels_of_more_than_one_axis_count_labels():
    z = RNG.normal(size=(4, 3, K)).astype(np.float32)
    y = RNG.integers(0, K, (4, 3))
    flat = z.reshape(12, K), y.ravel()
    for loss in (tasks.cross_entropy, tasks.squared):
        close(loss(z, y, np.ones(4)), loss(*flat, np.ones(12)))
        weight = np.array([1, 0, 2, 0.5], np.float32)
        close(loss(z, y, weight), loss(*flat, np.repeat(weight, 3)))
        mask = RNG.integers(0, 2, (4, 3))
        close(loss(z, y, mask), loss(*flat, mask.ravel()))
    assert tasks.means(tasks.cross_entropy(0 * z, 0 * y, np.ones(4)))["accuracy"] == 1
    refused("weight must be shaped", lambda: tasks.cross_entropy(z, y, np.ones((4, 1))))
    refused("outputs must be", lambda: losses.exact_cross_entropy(z, {"y": y}))


WRONG = {
    "cross_entropy": (tasks.cross_entropy, OUTPUTS, CLASSES, [-1, K, 255]),
    "squared": (tasks.squared, OUTPUTS, CLASSES, [-1, K, 255]),
    "binary_cross_entropy": (tasks.binary_cross_entropy, OUTPUTS, YES_NO, [-1.0, 2.0]),
}


@pytest.mark.parametrize("loss, outputs, y, wrong", WRONG.values(), ids=WRONG)
def test_a_label_that_is_none_is_refused_and_where_it_is_not_known_the_loss_is_nan(
    loss, outputs, y, wrong
):
    for value in wrong:
        y = y.copy()
        y[2] = value
        refused(rf"^{loss.__name__}: y\[2.*\]={value}: must be", lambda y=y: loss(outputs, y, ONES))
        assert np.isnan(jax.jit(loss)(outputs, y, ONES)["loss"])
        padded = ONES.copy()
        padded[2] = 0
        rest = np.arange(N) != 2
        wanted = loss(outputs[rest], y[rest], ONES[rest])
        close(loss(outputs, y, padded), wanted)
        close(jax.jit(loss)(outputs, y, padded), wanted)
        assert np.isfinite(jax.jit(partial(gradient, loss))(outputs, y, padded)).all()


@pytest.mark.parametrize("value", [-1, K, 200])
def test_flatness_agrees_on_what_is_no_class(value):
    batch = {"y": np.array([0, value, 1])}
    for each in (losses.exact_cross_entropy, losses.squared_errors):
        refused(
            rf"y\[1\]={value}: must be a class, from 0 to 3", lambda e=each: e(OUTPUTS[:3], batch)
        )
        np.testing.assert_array_equal(np.isnan(jax.jit(each)(OUTPUTS[:3], batch)), [0, 1, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint32, np.int64])
def test_classes_may_be_whole_numbers_of_any_size(dtype):
    for loss in (tasks.cross_entropy, tasks.squared):
        close(loss(OUTPUTS, CLASSES.astype(dtype), WEIGHT), loss(OUTPUTS, CLASSES, WEIGHT))
    many = np.zeros((2, 300), np.float32)  # more than a byte tells apart
    many[:, 3] = 9
    y = np.array([3, 3], dtype)
    assert tasks.cross_entropy(many, y, np.ones(2))["accuracy"] == 2
    assert tasks.squared(many, y, np.ones(2))["loss"] == 2 * 64


def test_a_large_label_does_not_wrap_around_into_a_class():
    y = np.array([2**32 + 1, 0])
    refused(
        "y.0.=4294967297: must be a class", lambda: tasks.cross_entropy(OUTPUTS[:2], y, ONES[:2])
    )


def test_truth_values_are_classes_and_yes_or_no():
    two = OUTPUTS[:, :2]
    yes = CLASSES > 1
    for loss in (tasks.cross_entropy, tasks.squared):
        close(loss(two, yes, WEIGHT), loss(two, yes.astype(int), WEIGHT))
    close(
        tasks.binary_cross_entropy(OUTPUTS, YES_NO == 1, WEIGHT),
        tasks.binary_cross_entropy(OUTPUTS, YES_NO, WEIGHT),
    )


@every
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sums_are_float32_at_least_and_do_not_overflow(loss, y, dtype):
    outputs = (300 * OUTPUTS).astype(dtype)
    sums = loss(outputs, y, WEIGHT.astype(dtype))
    close(sums, loss(outputs.astype(np.float32), y, WEIGHT))
    assert {s.dtype for s in jax.tree.leaves(sums)} == {jnp.dtype("float32")}


@every
def test_losses_stand_under_strict_promotion_of_dtypes(loss, y):
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (np.float32, np.float16):
            for weight in (WEIGHT, np.ones(N, int)):
                loss(OUTPUTS.astype(dtype), y, weight)
        tasks.cross_entropy(OUTPUTS, CLASSES.astype(np.uint8), WEIGHT, smoothing=0.1)
        losses.exact_cross_entropy(OUTPUTS, {"y": CLASSES.astype(np.uint8)}, 0.1)
