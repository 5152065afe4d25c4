"""Pruning in a run: masks are made at the beginning and hold until the end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import family
from masked import everything, removed, same
from samscale import keys, pruning, sharpness, tasks
from samscale.config import Config
from samscale.training import method, program, step
from samscale.training.compiled import Compiled
from samscale.training.step import Knobs

TINY = {"dataset": "digits", "num_neurons": (16,), "batch_size": 32, "optimizer": "sgd"}
HALF = {"Dense_0": 512, "Dense_1": 80}  # of the kernels of TINY
every = pytest.mark.parametrize("name", sorted(set(pruning.PRUNERS) - {"none"}))


@functools.cache
def built(**knobs):
    """``init`` and jitted ``advance`` of a config, its knobs, examples and order."""
    config = Config(**{**TINY, **knobs}).validate()
    task = tasks.build(config)
    p = program.build(config, task)
    examples = jax.tree.map(jnp.asarray, task.train)
    order = p.order(Knobs.of(config), 0)
    return p.init, family.jit(p.advance), Knobs.of(config), examples, order


def begun(**knobs):
    """The state before the first step."""
    init, _, *arguments = built(**knobs)
    return init(*arguments)


@pytest.mark.parametrize(
    "name, scope, local",
    [
        ("random", "default", True),
        ("magnitude", "default", True),
        ("magnitude", "global", False),
        ("snip", "default", False),
        ("snip", "layer", True),
    ],
)
def test_a_program_begins_with_exactly_the_share_removed(name, scope, local):
    state = begun(pruner=name, sparsity=0.5, prune_scope=scope)
    gone = removed(state.mask)
    assert sum(gone.values()) == sum(HALF.values())
    assert (gone == HALF) == local
    same(state.params, pruning.apply(state.mask, begun().params))


@every
def test_at_sparsity_zero_there_is_no_mask(name):
    init, _, *arguments = built(pruner=name, sparsity=0.0)
    assert jax.eval_shape(init, *arguments).mask is None


def test_seeds_can_be_mapped_over():
    init, _, numbers, examples, order = built(pruner="random", sparsity=0.5)
    seeds = np.arange(2, dtype=np.uint32)
    mapped = jax.jit(jax.vmap(lambda s: init(numbers._replace(seed=s), examples, order)))(seeds)
    first, second = (jax.tree.map(lambda m, i=i: m[i], mapped.mask) for i in range(2))
    assert removed(first) == removed(second) == HALF
    assert (everything(first) != everything(second)).any()
    same(first, begun(pruner="random", sparsity=0.5).mask)


def test_the_random_mask_is_drawn_with_a_key_of_its_own():
    state = begun(pruner="random", sparsity=0.5)

    def with_key_of(purpose):
        scores = pruning.random(keys.address(0, purpose), state.params, None)
        return everything(pruning.make_mask(scores, 0.5, "layer"))

    mask = everything(state.mask)
    np.testing.assert_array_equal(mask, with_key_of(keys.PRUNE))
    agreement = (mask == with_key_of(keys.INIT)).mean()
    assert abs(agreement - 0.5) < 0.1  # 1184 weights: seven standard deviations


def mean_gradient(params, examples, rows):
    """Of the cross entropy of an MLP with one hidden layer, by hand in float64."""
    x, y = (np.asarray(examples[name])[rows] for name in "xy")
    x = x.reshape(len(rows), -1) / 16
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    before = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    hidden = np.maximum(before, 0)
    outputs = hidden @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
    probabilities = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    error = (probabilities - np.eye(10)[y]) / len(rows)
    inner = error @ p["Dense_1"]["kernel"].T * (before > 0)
    return {"Dense_0": {"kernel": x.T @ inner}, "Dense_1": {"kernel": hidden.T @ error}}


def test_snip_looks_at_the_same_batches_wherever_data_lie():
    """A window of streamed data ends in copies of a batch that no step looks at."""
    config = Config(pruner="snip", sparsity=0.5, snip_batches=14, batch_size=100, num_neurons=(8,))
    too_many = dataclasses.replace(config, snip_batches=15)
    with pytest.raises(ValueError, match="snip_batches=15: must be at most 14, those of an epoch"):
        Compiled(dataclasses.replace(too_many, validation_fraction=0.0).validate())
    masks = []
    for cache in (True, False):
        whole = dataclasses.replace(config, validation_fraction=0.0, cache=cache).validate()
        machine, knobs = Compiled(whole), Knobs.of(whole)
        window = machine.feed(machine.order(knobs, 0), 0)
        masks.append(everything(machine.init(knobs, window.examples, window.order).mask))
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("batches", [1, 3])
def test_snip_keeps_the_largest_weight_times_gradient_of_the_first_batches(batches):
    knobs = {"pruner": "snip", "sparsity": 0.5, "snip_batches": batches}
    mask = everything(begun(**knobs).mask)
    _, _, _, examples, order = built(**knobs)
    params = begun().params
    order = np.asarray(order)
    grads = [everything(mean_gradient(params, examples, rows)) for rows in order[:batches]]
    scores = abs(everything(params) * np.mean(grads, axis=0))
    assert scores[mask].min() >= scores[~mask].max() * (1 - 1e-4)
    assert scores[mask].min() > 0


@pytest.mark.parametrize(
    "name, optimizer",
    [
        *((name, "sgd") for name in sorted(set(pruning.PRUNERS) - {"none"})),
        ("snip", "adam"),
        *(("magnitude", optimizer) for optimizer in sorted(set(sharpness.PRESETS) - {"sam_on"})),
    ],
)
def test_removed_weights_stay_exactly_zero_in_training(name, optimizer):
    _, advance, numbers, examples, order = built(optimizer=optimizer)  # the mask is an argument
    start = begun(pruner=name, sparsity=0.5, optimizer=optimizer)
    end, _ = advance(start, examples, order, 0, 3, numbers)
    same(end.mask, start.mask)
    mask, before, after = (everything(t) for t in (start.mask, start.params, end.params))
    assert not after[~mask].any()
    assert (after != before)[mask].mean() > 0.5  # the rest hangs on pixels that are never lit


@pytest.mark.parametrize("name", sorted(set(sharpness.PRESETS) - {"sam_on"}))
def test_the_ascent_never_touches_removed_weights(name):
    knobs = {"pruner": "magnitude", "sparsity": 0.5, "optimizer": name}
    config = Config(**{**TINY, **knobs}).validate()
    task, start = tasks.build(config), begun(**knobs)
    sizes = {"num_steps": 10, "per_epoch": 5, "num_examples": 160}
    make = method.maker(config, lambda t: 1.0, **sizes)
    seen = []

    def spied(*args):
        gradient = make(*args)

        def value_and_grad(*args, **how):
            result, state, info = gradient.value_and_grad(*args, **how)
            seen.append((info.ascent, info.clean_grads, result[1]))
            return result, state, info

        return gradient._replace(value_and_grad=value_and_grad)

    one = step.make_step(task, spied, program._optimizer(config, 10), per_example=name == "esam")
    batch = jax.tree.map(lambda a: jnp.asarray(a[:32]), task.train)
    state, _ = one(start, batch, Knobs.of(config))
    one(state, batch, Knobs.of(config))  # now there is momentum, too
    mask = everything(start.mask)
    ascent, clean, grads = seen[0 if config.sam_every > 1 else 1]
    for tree in (ascent, clean, grads):
        assert not everything(tree)[~mask].any()
    assert everything(ascent)[mask].any()
    assert everything(grads)[mask].any()
