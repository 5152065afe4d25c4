"""Every method in the program, by its name: with all that a run may ask for besides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import family
from samscale import models, sharpness, tasks
from samscale.config import Config
from samscale.tasks import means
from samscale.training import method, program
from samscale.training.step import Knobs

TINY = {"num_neurons": (8, 4), "batch_size": 32, "num_train_steps": 12, "lr_scheduler": "constant"}
on_an_mlp = pytest.mark.parametrize("name", sorted(set(sharpness.PRESETS) - {"sam_on"}))


@functools.cache
def trained(steps=4, **knobs):
    """State and infos after some steps from the first batch on."""
    config = Config(**{**TINY, **knobs}).validate()
    task = tasks.build(config)
    p = program.build(config, task)
    numbers = Knobs.of(config)
    examples = jax.tree.map(jnp.asarray, dict(task.train))
    order = p.order(numbers, 0)
    start = p.init(numbers, examples, order)
    return family.jit(p.advance)(start, examples, order, 0, steps, numbers)


def leaves(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@on_an_mlp
def test_it_composes_with_pruning_clipping_micro_batches_half_precision_and_smoothing(name):
    state, infos = trained(
        optimizer=name,
        learning_rate=0.01,
        pruner="magnitude",
        sparsity=0.5,
        clip_norm=0.5,
        micro_batches=2,
        half_precision=True,
        label_smoothing=0.1,
    )
    assert np.isfinite(infos["loss"][:4]).all()
    assert np.isfinite(leaves(state.params)).all()
    kept = np.concatenate(
        [
            np.broadcast_to(m, w.shape).ravel()
            for m, w in zip(jax.tree.leaves(state.mask), jax.tree.leaves(state.params), strict=True)
        ]
    )
    assert not leaves(state.params)[~kept].any()


@pytest.mark.parametrize("name", ["sam", "gsam", "friendly_sam", "multistep_sam", "sgd"])
def test_micro_batches_change_nothing_but_the_memory(name):
    whole, _ = trained(optimizer=name)
    parts, _ = trained(optimizer=name, micro_batches=4)
    np.testing.assert_allclose(leaves(parts.params), leaves(whole.params), rtol=1e-4, atol=1e-6)


def test_groups_change_what_is_ascended():
    whole, _ = trained(optimizer="sam", rho=0.5)
    groups, _ = trained(optimizer="sam", rho=0.5, sam_groups=8)
    named, _ = trained(optimizer="m_sam", rho=0.5)
    assert abs(leaves(groups.params) - leaves(whole.params)).max() > 1e-4
    np.testing.assert_array_equal(leaves(groups.params), leaves(named.params))


@pytest.mark.parametrize(
    "knobs",
    [
        {"sam_norm": "inf", "rho": 0.001},
        {"sam_norm": "1"},
        {"sam_steps": 3, "rho": 0.5},
        {"sam_every": 3},
        {"rho_scheduler": "learning_rate", "lr_scheduler": "cosine"},
    ],
    ids=lambda knobs: "-".join(map(str, knobs.values())),
)
def test_each_shared_knob_does_something(knobs):
    plain = {"rho": knobs["rho"]} if "rho" in knobs else {}
    rest = {"lr_scheduler": knobs["lr_scheduler"]} if "lr_scheduler" in knobs else {}
    usual, _ = trained(optimizer="sam", **plain, **rest)
    other, _ = trained(optimizer="sam", **knobs)
    assert abs(leaves(usual.params) - leaves(other.params)).max() > 1e-6


def test_the_radius_of_gsam_falls_with_the_learning_rate_unless_told():
    knobs = {"optimizer": "gsam", "lr_scheduler": "linear", "rho": 0.5}
    falling, constant = trained(12, **knobs), trained(12, **knobs, rho_scheduler="constant")
    assert falling[1]["gap"][11] < 0.5 * constant[1]["gap"][11]


@pytest.mark.parametrize(
    "words, knobs",
    [
        ("sam_norm='inf': must be '2' where optimizer='usam'", {"sam_norm": "inf"}),
        ("sam_steps=2: must be 1 where optimizer='usam'", {"sam_steps": 2}),
        ("sam_every=2: must be 1 where optimizer='bsam'", {"optimizer": "bsam", "sam_every": 2}),
        ("sam_every=2: must be 1 where optimizer='sgd'", {"optimizer": "sgd", "sam_every": 2}),
        ("rho_min=0.01: must be 0 unless rho_scheduler=", {"optimizer": "sam", "rho_min": 0.01}),
        ("rho_min=0.3: must be at most rho=0.05", {"optimizer": "gsam", "rho_min": 0.3}),
        (
            "rho_scheduler='learning_rate': must be 'default' where optimizer='adam'",
            {"optimizer": "adam", "rho_scheduler": "learning_rate"},
        ),
        (
            "decay_mode='decoupled': must be 'coupled' where optimizer='bsam'",
            {"optimizer": "bsam", "decay_mode": "decoupled"},
        ),
        (
            "sam_norm='3': must be 1, 2 or inf where sam_steps > 1",
            {"optimizer": "sam", "sam_norm": "3", "sam_steps": 2},
        ),
        (
            "momentum=0.0: must be greater than 0 where optimizer='momentum_sam'",
            {"optimizer": "momentum_sam", "momentum": 0.0},
        ),
        (
            "base_optimizer='adam': must be left alone where optimizer='bsam' is a base optimizer",
            {"optimizer": "bsam", "base_optimizer": "adam"},
        ),
        ("optimizer='sam_on': ", {"optimizer": "sam_on"}),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.split(":")[0],
)
def test_what_a_method_cannot_do_is_one_sentence(words, knobs):
    config = Config(**{**TINY, "optimizer": "usam", **knobs}).validate()
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is what is tested
        program.build(config, tasks.build(config))
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_gradients_are_counted_to_the_last_one():
    count = lambda steps, **knobs: method.gradients(Config(**knobs).validate(), steps)
    assert count(10, optimizer="sgd") == 10
    assert count(10, optimizer="sam") == 20
    assert count(11, optimizer="looksam") == 11 + 3
    assert count(11, optimizer="sam", sam_every=4, sam_steps=2) == 11 + 2 * 3
    assert count(9, optimizer="esam") == pytest.approx(9 * (1 + 1 / 3 + 0.5))
    assert count(9, optimizer="esam", esam_gamma=1.0) == 18


def residual_network(seed=0):
    model = models.build("ResNet18", 3, num_filters=4, num_blocks=(1,))
    x = jax.random.normal(jax.random.key(seed), (6, 8, 8, 3))
    batch = {"x": x, "y": jnp.array([0, 1, 2, 0, 1, 2])}
    init, loss = tasks.supervised(model, tasks.cross_entropy, batch)
    params, stats = init(jax.random.key(1))

    def mean(params, batch):
        sums, new = loss(params, stats, batch, jax.random.key(0), True)
        return means(sums)["loss"], new

    return params, batch, mean


def test_only_scales_and_shifts_of_batch_norm_climb_in_sam_on():
    params, batch, mean = residual_network()
    gradient = sharpness.sam_on(jax.value_and_grad(mean, has_aux=True), 0.5)
    (_, _), _, info = family.jit(gradient.value_and_grad)(params, gradient.init(params), batch)
    moved = {
        jax.tree_util.keystr(path)
        for path, e in jax.tree_util.tree_leaves_with_path(info.ascent)
        if e.any()
    }
    assert moved
    assert all("scale" in path or "bias" in path for path in moved)
    assert not any("Dense" in path for path in moved)
    np.testing.assert_allclose(sharpness.norm(info.ascent), 0.5, rtol=1e-5)


@pytest.mark.parametrize("name", ["sam", "exact_sam", "looksam", "gsam"])
def test_the_kept_statistics_are_those_of_the_clean_pass(name):
    params, batch, mean = residual_network()
    gradient = sharpness.PRESETS[name](jax.value_and_grad(mean, has_aux=True))
    (out, _), _, info = family.jit(gradient.value_and_grad)(params, gradient.init(params), batch)
    expected = family.jit(mean)(params, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), out, expected)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (out, info.out)), strict=True))


def test_convolutions_and_batch_norm_are_differentiated_twice_where_a_method_asks():
    with jax.enable_x64(True):
        params, batch, mean = residual_network()
        wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float64), tree)
        params, batch = wide(params), {**batch, "x": wide(batch["x"])}
        vg = jax.value_and_grad(mean, has_aux=True)
        gradient = sharpness.exact_sam(vg, 0.1)
        exact = family.jit(lambda w: gradient.value_and_grad(w, gradient.init(w), batch))
        (_, grads), _, _ = exact(params)
        above = lambda w: exact(w)[2].out[0]

        keys = iter(jax.random.split(jax.random.key(5), 100))
        way = jax.tree.map(lambda w: jax.random.normal(next(keys), w.shape, w.dtype), params)
        moved = lambda h: jax.tree.map(lambda w, d: w + h * d, params, way)
        slope = (above(moved(1e-5)) - above(moved(-1e-5))) / 2e-5
        expected = sum(
            jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, way)), strict=True)
        )
        np.testing.assert_allclose(slope, expected, rtol=1e-5)
