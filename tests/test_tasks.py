"""A network as a task, and tasks of one's own."""

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
from samscale.training.compiled import Compiled
from samscale.training.step import Knobs

N, K = 7, 4
RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(N, K)).astype(np.float32)
CLASSES = np.array([0, 3, 1, 1, 2, 0, 3], np.int32)
ONES = np.ones(N, np.float32)
KEY = jax.random.key(0)


IMAGES = RNG.normal(size=(N, 8, 8, 1)).astype(np.float32)
BATCH = {"x": IMAGES, "y": CLASSES}


def close(received, expected):
    compare = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, received, expected)


def same(received, expected):
    jax.tree.map(np.testing.assert_array_equal, received, expected)


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


def test_both_passes_of_a_step_drop_the_same_units():
    """With another key the perturbed pass would see another network, and the gap would not be 0."""
    config = Config(optimizer="sam", rho=0.0, dropout=0.5, num_neurons=(16,)).validate()
    machine, knobs = Compiled(config), Knobs.of(config)
    window = machine.feed(machine.order(knobs, 0), 0)
    state = machine.init(knobs, window.examples, window.order)
    _, infos = machine.advance(state, window.examples, window.order, 0, 3, knobs)
    np.testing.assert_array_equal(infos["gap"][:3], 0)
    assert (infos["loss"][:3] > 0).all()


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


def raises(config):
    raise RuntimeError("\\nno such\\ncable")


def reads(config):
    return config.rho


def nameless(config):
    split = {"x": np.zeros(3)}
    loss = lambda params, stats, batch, key, train: ({"loss": 0.0, "count": 3.0}, stats)
    return Task(split, split, split, lambda key: ({}, {}), loss)


def mistyped(config):
    split = {"x": np.zeros(3)}
    loss = lambda params, stats, batch, key, train: ({"loss": batch["y"]}, stats)
    return Task(split, split, split, lambda key: ({}, {}), loss)


def ragged(config):
    x = np.zeros(3)
    good = {"x": x, "y": x}
    return Task(good, good, {"x": x, "y": x[:2]}, None, None)


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


@pytest.mark.parametrize(
    "function, words",
    [
        ("raises", "RuntimeError: no such cable"),
        ("reads", "ValueError: config.rho is not for a task to read"),
        (
            "nameless",
            "loss must return sums named 'loss', 'count', 'accuracy' (the last is its monitor), "
            "not 'count', 'loss'",
        ),
        ("mistyped", "init and loss of one example: KeyError: 'y'"),
        ("ragged", "the arrays of test must have one length, not {'x': 3, 'y': 2}"),
    ],
)
def test_what_goes_wrong_in_a_task_of_ones_own_is_one_sentence(own, function, words):
    with pytest.raises(ValueError, match=re.escape(f"task='{own}:{function}': {words}")) as error:
        tasks.build(Config(task=f"{own}:{function}"))
    assert "\n" not in str(error.value)


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
