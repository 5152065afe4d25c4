"""Activation stability and ranks of features: closed forms, and what each network shows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from samscale import tasks
from samscale.config import Config
from samscale.flatness import features
from samscale.models import MODELS

KEY = jax.random.key(0)


def spanned(d, values, n=64):
    """Centred features (n, d) with these singular values."""
    x = np.random.default_rng(0).normal(size=(n, len(values)))
    u = np.linalg.qr(x - x.mean(0))[0]
    v = np.linalg.qr(np.random.default_rng(1).normal(size=(d, len(values))))[0]
    return jnp.asarray(u * np.asarray(values) @ v.T, jnp.float32)


def test_equal_directions_count_one_each():
    found = features.rank(spanned(20, [3.0] * 7))
    assert found["feature_rank"] == pytest.approx(7, rel=1e-4)
    assert found["feature_components"] == 7


def test_the_rank_is_the_exponential_of_the_entropy():
    p = np.array([0.7, 0.2, 0.1])
    found = features.rank(spanned(5, p))
    assert found["feature_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


@pytest.mark.parametrize(("last", "components"), [(0.0995, 1), (0.102, 2)])
def test_components_hold_99_percent_of_the_variance(last, components):
    found = features.rank(spanned(5, [1.0, last]))
    assert found["feature_components"] == components


def test_a_shift_of_all_examples_is_no_direction():
    x = spanned(5, [2.0, 1.0])
    moved = features.rank(x + 7.0)
    assert moved["feature_rank"] == pytest.approx(features.rank(x)["feature_rank"], rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_examples_that_look_alike_span_nothing(value):
    x = jnp.full((10, 4), value, jnp.float32)
    assert features.rank(x) == {"feature_rank": 0.0, "feature_components": 0.0}


def test_stability_is_the_share_of_units_on_their_side_whatever_the_layer():
    start = {"a": jnp.array([[1.0, -1.0], [2.0, -2.0]]), "b": jnp.array([[1.0], [1.0]])}
    now = {"a": jnp.array([[3.0, -1.0], [2.0, -2.0]]), "b": jnp.array([[-1.0], [1.0]])}
    x = spanned(3, [1.0], n=2)
    shown = lambda units, batch: (jax.tree.map(lambda a: a[batch["i"]], units), x[batch["i"]])
    of = lambda now, start: features.compared(
        Partial(shown), Partial(shown, start), now, {"i": jnp.arange(2)}
    )
    found = of(now, start)
    assert found["activation_stability"] == pytest.approx(5 / 6)
    assert found["active_share"] == pytest.approx(3 / 6)
    assert of({}, {}) == features.rank(x)


@pytest.fixture(scope="module", params=sorted(MODELS))
def shown(request):
    """The task of each model, and what it shows of two examples at initialization."""
    small = {"num_neurons": (6, 5), "num_filters": 2}
    task = tasks.build(Config(model=request.param, dataset="digits", **small))
    params, stats = task.init(KEY)
    batch = {name: jnp.asarray(a[:2]) for name, a in task.train.items()}
    return request.param, task, params, stats, batch


def test_every_network_shows_what_its_head_is_given(shown):
    _, task, params, stats, batch = shown
    _, found = task.activations(params, stats, batch)
    head = params["Dense_2" if "Dense_2" in params else "Dense_0"]
    outputs = found @ head["kernel"] + head["bias"][None]
    wanted = task.outputs(params, stats, batch)
    np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5)


def test_every_network_shows_all_its_relus(shown):
    name, task, params, stats, batch = shown
    units, _ = task.activations(params, stats, batch)
    count = {"MLP": 2, "ResNet18": 1 + 2 * 8, "ResNet50": 1 + 3 * 16}[name]
    assert len(jax.tree.leaves(units)) == count
    assert all(len(leaf) == 2 for leaf in jax.tree.leaves(units))


def test_showing_changes_neither_outputs_nor_statistics(shown):
    _, task, params, stats, batch = shown
    sums, after = task.loss(params, stats, batch, KEY, True)
    assert jax.tree.structure(after) == jax.tree.structure(stats)
    assert set(sums) >= {"loss", "count"}


def test_features_in_half_precision_have_a_rank():
    found = features.rank(spanned(20, [3.0] * 7).astype(jnp.bfloat16))
    assert found["feature_components"] == 7


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(x)


def test_a_module_that_shows_nothing_is_a_sentence():
    activations = tasks.watcher(Plain())
    params = Plain().init(KEY, jnp.ones((1, 3)))["params"]
    with pytest.raises(ValueError, match="must sow 'features' once"):
        activations(params, {}, {"x": jnp.ones((1, 3))})
