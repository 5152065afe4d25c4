"""The released program's defects (docs/defects.md) are absent."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale import cli, models, optimizers, pruning, sharpness, tasks
from samscale.config import Config
from samscale.training import program, progress, record, run
from samscale.training.step import Knobs

TABLE = pathlib.Path("docs/defects.md").read_text()


@pytest.mark.parametrize("number", range(1, 19))
def test_every_defect_has_a_row_whose_tests_exist(number):
    (row,) = [line for line in TABLE.splitlines() if line.startswith(f"| D{number} |")]
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", row)
    assert named
    for file, function in named:
        assert f"def {function}" in (pathlib.Path("tests") / file).read_text()


def ready(**changes):
    """The pieces of a small run on digits, jitted."""
    config = Config(num_neurons=(8,), batch_size=100, **changes).validate()
    task = tasks.build(config)
    p = program.build(config, task)
    knobs = Knobs.of(config)
    order = jax.jit(p.order)(knobs, 0)
    return p, task, knobs, order, jax.jit(p.init)(knobs, task.train, order)


def test_the_configs_are_those_of_the_papers_table():
    wanted = {
        "mnist_mlp": (100, 0.1, "step", 1e-4, 128, 0.9, 0),
        "cifar10_resnet18": (200, 0.1, "step", 5e-4, 128, 0.9, 0),
        "imagenet_resnet50": (90, 0.1, "cosine", 1e-4, 512, 0.9, 5000),
    }
    for name, numbers in wanted.items():
        c = cli.load_config(f"configs/{name}.py").validate()
        assert numbers == (
            c.num_epochs,
            c.learning_rate,
            c.lr_scheduler,
            c.weight_decay,
            c.batch_size,
            c.momentum,
            c.warmup_steps,
        )


@pytest.mark.parametrize("pruner", sorted(set(pruning.PRUNERS) - {"none"}))
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.93])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_removes_exactly_so_many_weights(pruner, sparsity, scope):
    *_, state = ready(pruner=pruner, sparsity=sparsity, prune_scope=scope)
    if sparsity == 0:
        assert state.mask is None
        return
    kernels = {n: layer["kernel"] for n, layer in state.mask.items()}
    removed = {n: int((~mask).sum()) for n, mask in kernels.items()}
    if scope == "layer":
        assert removed == {n: round(sparsity * mask.size) for n, mask in kernels.items()}
    total = sum(mask.size for mask in kernels.values())
    assert scope == "layer" or sum(removed.values()) == round(sparsity * total)


def test_ties_fall_by_index():
    scores = {"Dense_0": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}}
    mask = pruning.make_mask(scores, 0.5, "global")
    np.testing.assert_array_equal(mask["Dense_0"]["kernel"].ravel(), [False] * 6 + [True] * 6)
    assert mask["Dense_0"]["bias"]


def test_layers_named_exempt_stay_dense_and_are_not_counted():
    *_, state = ready(pruner="magnitude", sparsity=0.5, prune_exempt=("Dense_1",))
    assert state.mask["Dense_1"]["kernel"].ndim == 0
    assert pruning.sparsity(state.mask) == 0.5


def test_the_reported_sparsity_is_the_exact_share(tmp_path):
    config = Config(num_neurons=(8,), num_epochs=1, pruner="snip", sparsity=0.25)
    final = run.train(config, tmp_path, progress.Silent())
    size = 64 * 8 + 8 * 10
    np.testing.assert_allclose(final["sparsity"], round(0.25 * size) / size, rtol=1e-6)


def test_pruning_does_not_shift_the_data():
    (_, _, _, dense, _), (_, _, _, pruned, _) = ready(), ready(pruner="snip", sparsity=0.5)
    np.testing.assert_array_equal(dense, pruned)


def test_pruning_and_initialization_draw_from_different_keys():
    (*_, dense), (*_, pruned) = ready(), ready(pruner="random", sparsity=0.5)
    kept = pruned.mask["Dense_0"]["kernel"]
    jax.tree.map(
        np.testing.assert_array_equal, pruned.params, pruning.apply(pruned.mask, dense.params)
    )
    magnitudes = np.abs(dense.params["Dense_0"]["kernel"])
    assert abs(np.corrcoef(np.ravel(kept), np.ravel(magnitudes))[0, 1]) < 0.2


@pytest.mark.parametrize("base", ["sgd", "adam", "adamw"])
def test_removed_weights_stay_zero(base):
    p, task, knobs, order, state = ready(pruner="random", sparsity=0.7, base_optimizer=base)
    start = state.params
    state, _ = jax.jit(p.advance)(state, task.train, order, 0, 5, knobs)
    for name, layer in state.params.items():
        gone = ~state.mask[name]["kernel"]
        assert gone.any()
        assert not layer["kernel"][gone].any()
        assert (layer["kernel"] != start[name]["kernel"])[~gone].any()


def test_weight_decay_never_bends_the_ascent():
    results = []
    for decay in (0.0, 10.0):
        p, task, knobs, order, state = ready(weight_decay=decay)
        _, infos = jax.jit(p.advance)(state, task.train, order, 0, 1, knobs)
        results.append((infos["gap"][0], infos["grad_norm"][0]))
    assert results[0] == results[1]


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_the_reported_gap_is_the_loss_above_less_the_loss_below(optimizer):
    p, task, knobs, order, state = ready(optimizer=optimizer, rho=0.3)
    batch = {name: a[order[0]] for name, a in task.train.items()}
    total = lambda w: task.loss(w, {}, batch, jax.random.key(0), True)[0]["loss"]
    grads = jax.grad(total)(state.params)
    radius = 0.3 / sharpness.norm(grads) if optimizer == "sam" else 0.0
    above = jax.tree.map(lambda w, g: w + radius * g, state.params, grads)
    expected = total(above) - total(state.params)
    _, infos = jax.jit(p.advance)(state, jax.device_put(task.train), order, 0, 1, knobs)
    np.testing.assert_allclose(infos["gap"][0], expected, rtol=1e-4)
    assert (infos["gap"][0] == 0) == (optimizer == "sgd")


def test_a_layer_exempt_from_pruning_must_exist():
    with pytest.raises(ValueError, match=r"prune_exempt='Dense_9': choose one of Dense_0, Dense_1"):
        ready(pruner="random", sparsity=0.5, prune_exempt=("Dense_9",))


def test_half_precision_computes_in_bfloat16_with_float32_parameters():
    p, task, knobs, order, state = ready(half_precision=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}
    text = jax.jit(p.advance).lower(state, task.train, order, 0, 1, knobs).as_text()
    assert re.search(r"dot_general.*tensor<\d+x\d+xbf16>", text)
    assert not re.search(r"dot_general.*tensor<\d+x\d+xf32>", text)


def test_an_epoch_is_a_permutation_of_the_training_set():
    config = Config(num_neurons=(8,), batch_size=1)
    p = program.build(config, tasks.build(config))
    orders = [np.sort(p.order(Knobs.of(config), epoch).ravel()) for epoch in range(2)]
    for order in orders:
        np.testing.assert_array_equal(order, np.arange(len(order)))
    assert not np.array_equal(p.order(Knobs.of(config), 0), p.order(Knobs.of(config), 1))


DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from samscale import models, sharpness, tasks
model = models.build("MLP", 3, num_neurons=(8,))
x, y = np.random.default_rng(0).normal(size=(32, 5)).astype("f"), np.arange(32) % 3
init, loss = tasks.supervised(model, tasks.cross_entropy, {"x": x[:1]})
params, _ = init(jax.random.key(0))
key = jax.random.key(0)
def sam(params, x, y):
    mean = lambda p: tasks.means(loss(p, {}, {"x": x, "y": y}, key, True)[0])["loss"]
    gradient = sharpness.sam(jax.value_and_grad(mean), 0.5)
    return gradient.value_and_grad(params, gradient.init(params))[0][1]
alone = jax.jit(sam)(params, x, y)
mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, P("batch"))
together = jax.jit(sam)(params, jax.device_put(x, split), jax.device_put(y, split))
assert len(jax.devices()) == 4
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, together)
"""


def test_the_ascent_does_not_depend_on_the_number_of_devices():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, "-c", DEVICES], check=True, env=env)


@pytest.mark.parametrize("optimizer", ["sgd", "sam"])
def test_mapped_seeds_and_radii_equal_single_runs(optimizer):
    p, task, knobs, *_ = ready(optimizer=optimizer)
    examples = jax.device_put(task.train)
    grid = [Knobs(np.uint32(s), np.float32(r), *knobs[2:]) for s in (0, 1) for r in (0.05, 0.2)]

    def final(knobs):
        order = p.order(knobs, 0)
        state = p.init(knobs, examples, order)
        return p.advance(state, examples, order, 0, 5, knobs)[0].params

    together = jax.jit(jax.vmap(final))(jax.tree.map(lambda *xs: np.stack(xs), *grid))
    alone = jax.jit(final)
    for i, one in enumerate(grid):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6),
            together,
            alone(one),
        )
    assert alone._cache_size() == 1


def test_batch_statistics_are_those_of_the_clean_pass():
    model = models.build("ResNet18", 10, num_filters=2)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    batch = {"x": x, "y": jnp.arange(4)}
    init, loss = tasks.supervised(model, tasks.cross_entropy, batch)
    params, stats = init(jax.random.key(1))

    def value_and_grad(params):
        mean = lambda p: (lambda s, new: (tasks.means(s)["loss"], new))(
            *loss(p, stats, batch, jax.random.key(0), True)
        )
        (_, new), grads = jax.value_and_grad(mean, has_aux=True)(params)
        return new, grads

    gradient = sharpness.sam(value_and_grad, 1.0)
    (new, _), _, info = gradient.value_and_grad(params, gradient.init(params))
    _, clean = loss(params, stats, batch, jax.random.key(0), True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new, clean)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), info.out, clean)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_task_of_ones_own_trains(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN_TASK)
    monkeypatch.chdir(tmp_path)
    config = Config(task="mine:regression", num_epochs=2, batch_size=16, learning_rate=0.05)
    final = run.train(config, tmp_path / "runs", progress.Silent())
    assert final["best_epoch"] in (1, 2)
    rows = record.read(tmp_path / "runs" / config.run_id)
    assert rows[1]["test_loss"] < rows[0]["test_loss"]
    assert "test_accuracy" not in rows[0]


OWN_TASK = """
import numpy as np
from samscale import models, tasks

def regression(config):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 3)).astype("float32")
    y = (x @ np.float32([[1], [2], [3]])) + 1
    split = lambda a, b: {"x": x[a:b], "y": y[a:b]}
    functions = tasks.supervised(models.MLP((8,), 1), tasks.squared, split(0, 1))
    return tasks.Task(split(0, 64), split(64, 80), split(80, 96), *functions,
                      monitor="loss", maximize=False)
"""


def test_changing_one_field_of_a_config_changes_its_folder():
    assert dataclasses.replace(Config(), momentum=0.8).run_id != Config().run_id


def test_parameters_without_names_have_no_kernels():
    params = [jnp.ones((2, 2))]
    assert optimizers.kernels(params) == [False]
    assert optimizers.kernels(jnp.ones(2)) is False
    assert pruning.make_mask(jnp.ones((2, 2)), 0.5, "global").ndim == 0


def test_class_labels_are_refused_by_a_loss_of_several_labels():
    with pytest.raises(ValueError, match=r"binary_cross_entropy.*\(10, 10\), not \(10,\)"):
        tasks.binary_cross_entropy(jnp.zeros((10, 10)), jnp.arange(10), jnp.ones(10))


def test_the_licence_is_the_one_that_is_named():
    text = pathlib.Path("LICENSE").read_text()
    assert "Apache License" in text[:200]
    assert "Version 2.0, January 2004" in text[:200]
    assert 'license = "Apache-2.0"' in pathlib.Path("pyproject.toml").read_text()
