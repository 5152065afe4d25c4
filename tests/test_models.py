import functools
import json
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from samscale import models

FOLDER = os.environ.get("SAMSCALE_REFERENCE")
X = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
every = pytest.mark.parametrize("name", sorted(models.MODELS))


def small(name, width=4, depth=1, **knobs):
    """Every model knows the knobs it needs."""
    knobs = {"num_neurons": (width,), "num_filters": width, "num_blocks": (depth,), **knobs}
    return models.build(name, 10, **knobs)


@functools.cache
def initialized_twice(model):
    """The variables of two seeds, along a leading axis."""
    seeds = jnp.arange(2)
    return jax.jit(jax.vmap(lambda seed: model.init(jax.random.key(seed), X)))(seeds)


def initialized(model):
    return jax.tree.map(lambda leaf: leaf[0], initialized_twice(model))


def shapes(model, image):
    """What ``init`` would return for a batch of one image, without the memory for it."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image)))


def size(variables):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    "num_neurons, count",
    [
        ((75, 25), 61_035),
        ((150, 50), 125_810),
        ((300, 100), 266_610),
        ((1200, 400), 1_426_410),
        ((3000, 1000), 5_366_010),
    ],
)
def test_the_mlp_has_as_many_parameters_as_the_papers(num_neurons, count):
    model = models.build("MLP", 10, num_neurons=num_neurons)
    assert size(shapes(model, (28, 28, 1))) == count


@pytest.mark.parametrize(
    "num_filters, count",
    [
        (4, 44_622),
        (8, 176_402),
        (16, 701_466),
        (32, 2_797_610),
        (64, 11_173_962),
        (128, 44_662_922),
        (256, 178_585_866),
    ],
)
def test_resnet18_has_as_many_parameters_as_the_papers(num_filters, count):
    model = models.build("ResNet18", 10, num_filters=num_filters)
    assert size(shapes(model, (32, 32, 3))) == count


@pytest.mark.parametrize(
    "num_filters, count",
    [(16, 1_993_976), (32, 6_917_640), (48, 14_771_992), (64, 25_557_032), (80, 39_272_760)],
)
def test_resnet50_has_as_many_parameters_as_the_papers(num_filters, count):
    model = models.build("ResNet50", 1000, num_filters=num_filters)
    assert size(shapes(model, (224, 224, 3))) == count


def trajectories():
    if not FOLDER:
        return []
    return json.loads((pathlib.Path(FOLDER) / "manifest.json").read_text())["trajectories"]


@pytest.mark.skipif(not FOLDER, reason="SAMSCALE_REFERENCE is unset: no names to compare with")
@pytest.mark.parametrize("entry", trajectories(), ids=lambda entry: entry["file"])
def test_names_and_shapes_are_those_of_the_released_program(entry):
    with np.load(pathlib.Path(FOLDER) / entry["file"]) as file:
        released = {
            path.removeprefix("init/"): file[path].shape for path in file if path.startswith("init")
        }
    num_outputs = max((path, shape) for path, shape in released.items() if "/Dense_" in path)[1][-1]
    knobs = {name: entry[name] for name in ("num_neurons", "num_filters") if name in entry}
    image = (28, 28, 1) if entry["inputs"] == "mnist" else (32, 32, 3)
    ours = shapes(models.build(entry["model"], num_outputs, **knobs), image)
    flat = traverse_util.flatten_dict(ours, sep="/")
    assert {path: leaf.shape for path, leaf in flat.items()} == released


def test_resnet18_takes_small_grey_images():
    model = small("ResNet18", num_blocks=(2, 2, 2, 2))
    images = jnp.zeros((3, 28, 28, 1))
    outputs, _ = jax.eval_shape(lambda k: model.init_with_output(k, images), jax.random.key(0))
    assert outputs.shape == (3, 10)


def test_the_numbers_in_their_names_count_the_layers_on_the_longest_way():
    for name, layers in (("ResNet18", 18), ("ResNet50", 50)):
        params = shapes(models.build(name, 10, num_filters=2), (32, 32, 3))["params"]
        kernels = [p for p in traverse_util.flatten_dict(params) if p[-1] == "kernel"]
        assert len([p for p in kernels if "conv_proj" not in p]) == layers


@every
@pytest.mark.parametrize("train", [True, False])
def test_there_is_one_output_a_class_and_an_example(name, train):
    model = small(name)
    rngs = {"dropout": jax.random.key(0)}
    apply = lambda v: model.apply(v, X, train=train, mutable=["batch_stats"], rngs=rngs)[0]
    outputs = jax.eval_shape(apply, jax.eval_shape(model.init, jax.random.key(0), X))
    assert (outputs.shape, outputs.dtype) == ((4, 10), jnp.float32)


@every
def test_a_larger_width_has_more_parameters(name):
    counts = [size(shapes(small(name, width), (32, 32, 3))) for width in (2, 3, 4, 8)]
    assert counts == sorted(set(counts))


@every
def test_seeds_can_be_mapped_over(name):
    both = initialized_twice(small(name))
    alone = shapes(small(name), X.shape[1:])
    assert jax.tree.map(jnp.shape, both) == jax.tree.map(lambda leaf: (2, *leaf.shape), alone)
    pair = traverse_util.flatten_dict(both["params"])
    assert all((w[0] != w[1]).any() for path, w in pair.items() if path[-1] == "kernel")


@every
def test_computing_in_bfloat16_keeps_parameters_and_statistics_in_float32(name):
    model = small(name, dtype=jnp.bfloat16)
    outputs, variables = jax.eval_shape(lambda k: model.init_with_output(k, X), jax.random.key(0))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@every
def test_evaluation_is_deterministic_and_leaves_the_batch_statistics_alone(name):
    model = small(name, dropout=0.5)
    variables = initialized(model)
    evaluate = jax.jit(lambda v: model.apply(v, X, train=False, mutable=["batch_stats"]))
    first, after = evaluate(variables)
    np.testing.assert_array_equal(first, evaluate(variables)[0])
    before = variables.get("batch_stats", {})
    jax.tree.map(np.testing.assert_array_equal, after.get("batch_stats", {}), before)


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50"])
def test_training_moves_the_running_mean_a_tenth_of_the_way(name):
    model = small(name)
    variables = initialized(model)
    train = jax.jit(lambda v: model.apply(v, X, train=True, mutable=["batch_stats"])[1])
    steps = [variables, train(variables)]
    steps.append(train({**variables, **steps[1]}))
    zero, once, twice = (v["batch_stats"]["bn_init"]["mean"] for v in steps)
    assert not zero.any()
    assert (once != 0).all()
    np.testing.assert_allclose(twice, 1.9 * once, rtol=1e-5)  # 1 - 0.9² = 0.19


def test_dropout_at_one_half_keeps_about_half_of_the_hidden_units_and_doubles_them():
    model = models.build("MLP", 1, num_neurons=(1000,), dropout=0.5)
    ones = {"kernel": jnp.zeros((192, 1000)), "bias": jnp.ones(1000)}
    total = {"kernel": jnp.ones((1000, 1)), "bias": jnp.zeros(1)}
    variables = {"params": {"Dense_0": ones, "Dense_1": total}}
    outputs = model.apply(variables, X, train=True, rngs={"dropout": jax.random.key(0)})
    assert not (outputs % 2).any()  # a sum of zeros and twos
    assert (abs(outputs - 1000) < 190).all()  # six standard deviations
    assert len(np.unique(outputs)) > 1
    np.testing.assert_array_equal(model.apply(variables, X), np.full((4, 1), 1000))


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50"])
def test_num_blocks_counts_the_residual_blocks_of_each_stage(name):
    params = shapes(small(name, num_blocks=(1, 3)), (32, 32, 3))["params"]
    blocks = {k: v for k, v in params.items() if "Block_" in k}
    assert len(blocks) == 4
    projected = [k.split("_")[-1] for k, v in blocks.items() if "conv_proj" in v]
    widened = {"ResNet18": ["1"], "ResNet50": ["0", "1"]}  # a bottleneck leaves 4 x its filters
    assert sorted(projected) == widened[name]


def test_stages_whose_filters_no_machine_holds_are_refused():
    with pytest.raises(ValueError, match=r"num_blocks: 25 stages .*, 16777216, must be between 1"):
        models.build("ResNet18", 10, num_filters=1, num_blocks=(1,) * 25)
    models.build("ResNet18", 10, num_filters=1, num_blocks=(1,) * 24)


def test_empty_num_blocks_are_those_of_the_name():
    for name, blocks in (("ResNet18", (2, 2, 2, 2)), ("ResNet50", (3, 4, 6, 3))):
        named, counted = (models.build(name, 10, num_blocks=b) for b in ((), blocks))
        assert named == counted


def test_a_stage_halves_the_image_but_for_the_first():
    model = small("ResNet18", num_blocks=(2, 2, 2))
    capture = lambda k: model.init_with_output(k, X, capture_intermediates=True)[1]
    seen = jax.eval_shape(capture, jax.random.key(0))["intermediates"]
    sides = [seen[f"ResNetBlock_{i}"]["__call__"][0].shape[1] for i in range(6)]
    assert sides == [8, 8, 4, 4, 2, 2]


def test_residual_blocks_of_resnet50_begin_as_the_identity():
    deep, shallow = (small("ResNet50", num_blocks=(depth,)) for depth in (2, 1))
    variables = initialized(deep)
    scales = [
        variables["params"][f"BottleneckResNetBlock_{i}"][f"BatchNorm_{j}"]["scale"]
        for i in range(2)
        for j in range(3)
    ]
    assert [float(s.sum()) for s in scales] == [4, 4, 0] * 2
    apply = lambda v: (deep.apply(v, X), shallow.apply(v, X))
    np.testing.assert_array_equal(*jax.jit(apply)(variables))


def test_an_unknown_model_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"^model='VGG': choose one of MLP, ResNet18, ResNet50$"):
        models.build("VGG", 10)
