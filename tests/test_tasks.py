"""Losses as sums and counts, a network as a task, and tasks of one's own."""

import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale import models, tasks
from samscale.config import Config
from samscale.training import program
from samscale.training.step import Knobs

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


def test_every_loss_is_tested():
    assert {loss for loss, _ in CASES.values()} == set(tasks.LOSSES.values())


def test_cross_entropy_is_minus_the_log_of_the_probability_of_the_class():
    o = OUTPUTS.astype(np.float64)
    probability = np.exp(o) / np.exp(o).sum(-1, keepdims=True)
    losses = -np.log(probability[np.arange(N), CLASSES])
    expected = {
        "loss": (WEIGHT * losses).sum(),
        "accuracy": (WEIGHT * (o.argmax(-1) == CLASSES)).sum(),
        "count": WEIGHT.sum(),
    }
    close(tasks.cross_entropy(OUTPUTS, CLASSES, WEIGHT), expected)


def test_squared_on_classes_is_the_distance_to_the_one_hot_vector():
    losses = ((OUTPUTS - np.eye(K)[CLASSES]) ** 2).sum(-1)
    expected = {
        "loss": (WEIGHT * losses).sum(),
        "accuracy": (WEIGHT * (OUTPUTS.argmax(-1) == CLASSES)).sum(),
        "count": WEIGHT.sum(),
    }
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


@every
@pytest.mark.parametrize("garbage", [1e4, np.inf, -np.inf, np.nan])
def test_padded_rows_change_no_sum_whatever_they_hold(loss, y, garbage):
    outputs = np.concatenate([OUTPUTS, np.full((3, K), garbage, np.float32)])
    labels = np.concatenate([y, y[:3]])
    weight = np.concatenate([WEIGHT, np.zeros(3, np.float32)])
    close(loss(outputs, labels, weight), loss(OUTPUTS, y, WEIGHT))


@every
@pytest.mark.parametrize("garbage", [1e4, np.inf, -np.inf, np.nan])
def test_padded_rows_change_no_gradient_whatever_they_hold(loss, y, garbage):
    outputs = np.concatenate([OUTPUTS, np.full((3, K), garbage, np.float32)])
    labels = np.concatenate([y, y[:3]])
    weight = np.concatenate([WEIGHT, np.zeros(3, np.float32)])
    received = gradient(loss, outputs, labels, weight)
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


IMAGES = RNG.normal(size=(N, 8, 8, 1)).astype(np.float32)
BATCH = {"x": IMAGES, "y": CLASSES}


def supervised(name, normalize=lambda x: x, **knobs):
    """``(params, stats)`` and the jitted loss of a small network."""
    knobs = {"num_neurons": (16,), "num_filters": 4, **knobs}
    model = models.build(name, K, **knobs)
    init, loss = tasks.supervised(model, tasks.cross_entropy, BATCH, normalize)
    params, stats = jax.jit(init)(KEY)
    return params, stats, jax.jit(loss, static_argnums=4)


def test_a_network_as_a_task_is_its_outputs_and_the_loss():
    params, stats, loss = supervised("MLP")
    assert stats == {}
    outputs = models.build("MLP", K, num_neurons=(16,)).apply({"params": params}, IMAGES)
    sums, after = loss(params, stats, BATCH, KEY, True)
    close(sums, tasks.cross_entropy(outputs, CLASSES, ONES))
    assert after == {}


def test_without_weights_each_example_weighs_one():
    params, stats, loss = supervised("MLP")
    bare, weighed = (
        loss(params, stats, batch, KEY, False)[0] for batch in (BATCH, {**BATCH, "weight": ONES})
    )
    same(bare, weighed)
    assert bare["count"] == N


def test_a_weight_in_the_batch_reaches_the_loss():
    params, stats, loss = supervised("MLP")
    x = IMAGES.copy()
    x[2:4] = np.inf
    weight = np.float32([1, 1, 0, 0, 1, 1, 1])
    padded, _ = loss(params, stats, {"x": x, "y": CLASSES, "weight": weight}, KEY, False)
    kept = {name: a[weight > 0] for name, a in BATCH.items()}
    close(padded, loss(params, stats, kept, KEY, False)[0])


def test_images_are_normalized_inside_the_loss():
    half = lambda x: x.astype(np.float32) / 2
    params, stats, loss = supervised("MLP", half)
    _, _, plain = supervised("MLP")
    halved = {**BATCH, "x": IMAGES / 2}
    close(loss(params, stats, BATCH, KEY, True), plain(params, stats, halved, KEY, True))


@pytest.fixture(scope="module")
def residual():
    return supervised("ResNet18", num_blocks=(1,))


def test_training_changes_batch_statistics_and_evaluation_does_not(residual):
    params, stats, loss = residual
    _, trained = loss(params, stats, BATCH, KEY, True)
    _, evaluated = loss(params, stats, BATCH, KEY, False)
    same(evaluated, stats)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), trained, stats)
    assert all(jax.tree.leaves(moved))


def test_evaluation_uses_the_statistics_it_is_given(residual):
    params, stats, loss = residual
    _, trained = loss(params, stats, BATCH, KEY, True)
    before, after = (loss(params, s, BATCH, KEY, False)[0]["loss"] for s in (stats, trained))
    assert before != after


def test_dropout_is_a_function_of_the_key_and_only_in_training():
    params, stats, loss = supervised("MLP", dropout=0.5)
    value = lambda key, train: loss(params, stats, BATCH, key, train)[0]["loss"]
    other = jax.random.key(1)
    assert value(KEY, True) == value(KEY, True) != value(other, True)
    assert value(KEY, False) == value(other, False)
    dense = {"params": params}, IMAGES
    outputs = models.build("MLP", K, num_neurons=(16,)).apply(*dense)
    close(value(KEY, False), tasks.cross_entropy(outputs, CLASSES, ONES)["loss"])


def test_in_half_precision_sums_are_float32():
    params, stats, loss = supervised("MLP", dtype=jnp.bfloat16)
    sums, _ = loss(params, stats, BATCH, KEY, True)
    assert {s.dtype for s in jax.tree.leaves(sums)} == {jnp.dtype("float32")}
    _, _, full = supervised("MLP")
    exact, _ = full(params, stats, BATCH, KEY, True)
    assert sums["loss"] != exact["loss"]
    np.testing.assert_allclose(sums["loss"], exact["loss"], rtol=0.02)


def test_a_config_becomes_a_task():
    config = Config(num_neurons=(5,), loss="squared", augmentation="crop_flip")
    task = tasks.build(config)
    params, _ = jax.jit(task.init)(KEY)
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        "Dense_0": (64, 5),
        "Dense_1": (5, 10),
    }
    batch = {name: a[:3] for name, a in task.train.items()}
    sums, _ = task.loss(params, {}, batch, KEY, True)
    model = models.build("MLP", 10, num_neurons=(5,))
    outputs = model.apply({"params": params}, np.float32(batch["x"]) / 16)
    close(sums, tasks.squared(outputs, batch["y"], np.ones(3, np.float32)))
    augmented = task.augment(KEY, batch)
    same(augmented["y"], batch["y"])
    assert augmented["x"].shape == batch["x"].shape
    assert (augmented["x"] != batch["x"]).any()
    assert (task.monitor, task.maximize) == ("accuracy", True)


OWN = """
import jax.numpy as jnp
import numpy as np

from samscale.tasks import Task


def line(config):
    x = np.arange(config.batch_size, dtype=np.float32)
    split = {"x": x, "y": 3 * x}

    def init(key):
        return {"w": jnp.zeros(())}, {}

    def loss(params, stats, batch, key, train):
        error = params["w"] * batch["x"] - batch["y"]
        return {"loss": (error**2).sum(), "count": jnp.float32(len(error))}, stats

    return Task(split, split, split, init, loss, monitor="loss", maximize=False)


def wrong(config):
    return {"train": None}


def nothing(config):
    return None


number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a module in the current directory, which Python does not look at by itself."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield name
    sys.modules.pop(name, None)


def test_a_task_of_ones_own_is_found_in_the_current_directory_and_sees_the_config(own):
    task = tasks.build(Config(task=f"{own}:line", batch_size=4))
    assert (task.monitor, task.maximize) == ("loss", False)
    same(task.train["x"], np.arange(4, dtype=np.float32))
    batch = {"x": np.ones(2)}
    assert task.augment(KEY, batch) is batch


def test_a_task_of_ones_own_is_trained_like_any_other(own):
    knobs = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1}
    config = Config(
        task=f"{own}:line", batch_size=4, num_epochs=2, lr_scheduler="constant", **knobs
    )
    task = tasks.build(config)
    p = program.build(config, task)
    numbers = Knobs.of(config)
    order = p.order(numbers, 0)
    state = p.init(numbers, task.train, order)
    state, infos = jax.jit(p.advance)(state, task.train, order, 0, 1, numbers)
    mean_square = (0 + 1 + 4 + 9) / 4
    np.testing.assert_allclose(infos["loss"], [4 * 9 * mean_square], rtol=1e-6)
    np.testing.assert_allclose(state.params["w"], 0.1 * 2 * 3 * mean_square, rtol=1e-6)


@pytest.mark.parametrize(
    "form, because",
    [
        ("nowhere_at_all:line", "(No module named 'nowhere_at_all')"),
        ("{own}:absent", "has no attribute 'absent')"),
        ("{own}", ""),
        ("{own}:", ""),
        (":line", ""),
        (":", ""),
        (".{own}:line", ""),
        ("{own}.py:line", ""),
        ("{own}_broken:line", "(No module named 'surely_not_installed')"),
        ("{own}:wrong", ", not dict"),
        ("{own}:nothing", ", not NoneType"),
        ("{own}:number", ""),
    ],
)
def test_a_wrong_task_is_answered_with_one_sentence_that_names_it(own, form, because):
    name = form.format(own=own)
    law = f"task={name!r}: must be module:function, returning a samscale.tasks.Task"
    with pytest.raises(ValueError, match=f"^{re.escape(law)}") as error:
        tasks.build(Config(task=name))
    answer = str(error.value)
    assert answer.endswith(because)
    assert "\n" not in answer
