"""What the family is given: numbers that are none, arguments that are no examples."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale import sharpness
from samscale.sharpness import PRESETS, accumulated, grouped, perturbations, plain
from samscale.sharpness.presets.combinations import follow

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(8, 3))
Y = np.arange(8.0)
W = {"kernel": np.array([1.0, -2.0, 0.5]), "bias": np.array(0.3)}
close = functools.partial(np.testing.assert_allclose, rtol=1e-12)  # rounding, of doubles


def losses(params, x, y):
    return (x @ params["kernel"] + params["bias"] - y) ** 2


def loss(params, *args):
    return losses(params, *args).mean()


VG = jax.value_and_grad(loss)


def of(gradient, *args):
    return gradient.value_and_grad(W, gradient.init(W), *args)


@pytest.mark.parametrize("rho", [-0.1, np.float32(-0.1), jnp.array(-0.1), np.float32("nan")])
def test_a_radius_that_is_none_is_refused_whatever_holds_it(rho):
    with pytest.raises(ValueError, match=r"^rho=.*: must be finite and at least 0"):
        of(sharpness.sam(VG, rho), X, Y)


def test_words_are_no_radius():
    with pytest.raises(ValueError, match=r"rho=.0\.05.: must be finite and at least 0"):
        of(sharpness.sam(VG, "0.05"), X, Y)


def test_a_traced_radius_is_taken_as_it_is():
    at = lambda rho: of(sharpness.sam(VG, rho), X, Y)[0][1]
    jax.tree.map(close, jax.jit(at)(0.1), at(0.1))
    assert jax.tree.all(jax.tree.map(jnp.isfinite, jax.jit(at)(-0.1)["bias"]))


@pytest.mark.parametrize("name", ["sam", "usam", "layer_sam", "fisher_sam", "asam"])
def test_a_tree_of_radii_must_be_that_of_the_parameters(name):
    with pytest.raises(ValueError, match="must be like that of the parameters"):
        of(PRESETS[name](VG, {"kernel": 0.1}), X, Y)


@pytest.mark.parametrize(
    "name, choices, words",
    [
        ("asam", {"eta": -0.5}, "eta=-0.5: must be finite and at least 0"),
        ("asam", {"eta": np.nan}, "eta=nan: must be finite"),
        ("fisher_sam", {"eta": -1.0}, "eta=-1.0: must be finite and at least 0"),
        ("gsam", {"alpha": np.nan}, "alpha=nan: must be finite"),
        ("friendly_sam", {"sigma": np.nan}, "sigma=nan: must be finite"),
        ("wsam", {"clip_norm": -1.0}, "clip_norm=-1.0: must be finite and at least 0"),
        ("bsam", {"num_examples": 0, "key": KEY}, "num_examples=0: must be finite and at least 1"),
        ("ssam_dynamic", {"total": -5, "key": KEY}, "total=-5: must be finite and at least 1"),
        ("ssam_dynamic", {"drop_rate": 2.0, "key": KEY}, "and at least 0 and at most 1"),
        ("m_sam", {"groups": 2.0}, "groups=2.0: must be a whole number of at least 1"),
    ],
)
def test_a_wrong_choice_is_one_sentence(name, choices, words):
    with pytest.raises(ValueError, match=words) as raised:
        PRESETS[name](VG, 0.1, **choices)
    assert "\n" not in str(raised.value)


def test_a_function_is_no_gradient_to_group():
    with pytest.raises(ValueError, match=r"must be a Gradient; plain\(...\) makes one"):
        grouped(VG, 2)


STATS = {"mean": np.zeros(3)}
with_stats = jax.value_and_grad(lambda w, stats, x, y, key: loss(w, x - stats["mean"][None], y))
LINEN = (STATS, X, Y, KEY)  # as in the example with Flax Linen


@pytest.mark.parametrize(
    "build, otherwise",
    [
        (lambda: sharpness.m_sam(with_stats, groups=2), "split="),
        (lambda: plain(accumulated(with_stats, 2)), "split="),
        (
            lambda: sharpness.esam(
                with_stats, losses=lambda w, stats, x, y, key: losses(w, x, y), key=KEY
            ),
            "take=",
        ),
    ],
)
def test_what_is_no_example_is_never_taken_apart(build, otherwise):
    with pytest.raises(ValueError, match=f"same leading axis of examples.*{otherwise}"):
        of(build(), *LINEN)


def test_esam_takes_what_it_is_told_to():
    rows = lambda args, rows: (args[0], args[1][rows], args[2][rows], args[3])
    each = lambda w, stats, x, y, key: losses(w, x - stats["mean"][None], y)
    how = {"losses": each, "beta": 1.0, "key": KEY}
    (_, grads), _, _ = of(sharpness.esam(with_stats, 0.3, take=rows, **how), *LINEN)
    (_, bare), _, _ = of(sharpness.esam(VG, 0.3, losses=losses, beta=1.0, key=KEY), X, Y)
    jax.tree.map(close, grads, bare)


def masked(params, x, y, mask):
    total = (losses(params, x, y) * mask).sum() / mask.sum()
    return total, mask.sum()


@pytest.mark.parametrize("groups", [2, 4])
def test_the_loss_of_masked_groups_is_that_of_the_batch(groups):
    mask = np.array([1, 1, 1, 0, 1, 0, 0, 0.0])  # the last of four groups has no example
    vg = jax.value_and_grad(masked, has_aux=True)
    whole, grads = vg(W, X, Y, mask)
    weight = lambda out: out[1]
    (out, found), _, _ = of(grouped(plain(vg), groups, weight=weight), X, Y, mask)
    close(out[0], whole[0])
    jax.tree.map(close, found, grads)


def test_the_passes_that_climb_may_see_another_batch():
    doubled = lambda args: (2 * args[0], args[1])
    (_, grads), _, info = of(sharpness.sam(VG, 0.1, ascent_args=doubled), X, Y)
    up = jax.grad(loss)(W, 2 * X, Y)
    length = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(up)))
    above = jax.tree.map(lambda w, g: w + 0.1 * g / length, W, up)
    jax.tree.map(close, grads, jax.grad(loss)(above, X, Y))
    assert not info.compared


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_projections_are_the_nearest_points_of_their_balls(p, scaled):
    t = np.array([1.0, 3.0, 0.5]) if scaled else np.ones(3)
    metric = (lambda params: {"a": jnp.asarray(t)}) if scaled else None
    e = np.array([0.9, -2.0, 0.1])
    found = perturbations.onto_ball(0.6, p, metric)({"a": jnp.asarray(e)}, {"a": e}, 0)["a"]
    z, u = e / t / 0.6, np.asarray(found) / t / 0.6
    assert np.linalg.norm(u, p) == pytest.approx(1, rel=1e-5)
    rng = np.random.default_rng(0)
    others = rng.normal(size=(20_000, 3))
    others /= np.maximum(1, np.linalg.norm(others, p, axis=1, keepdims=True))
    assert np.linalg.norm(z - u) <= np.linalg.norm(z - others, axis=1).min() + 1e-6


def test_a_random_direction_has_the_radius_of_what_it_moves():
    mask = {"kernel": np.array([True, False, True]), "bias": np.array(False)}
    _, _, info = of(sharpness.random_sam(VG, 0.2, mask=mask, key=KEY), X, Y)
    lengths = np.abs(info.ascent["kernel"])
    close(lengths, 0.2 / 2**0.5 * np.array([1, 0, 1]))
    assert info.ascent["bias"] == 0


def test_the_radius_of_gsam_may_be_a_tree():
    at = follow(lambda count: 1.0 - count / 4, {"a": 0.4, "b": 0.2}, 0.1)
    found = at(2)
    assert found["a"] == pytest.approx(0.25)
    assert found["b"] == pytest.approx(0.15)


def test_costs_are_those_of_the_presets_unless_told():
    assert sharpness.gradients("looksam", 10) == 12
    assert sharpness.gradients("looksam", 10, every=2) == 15
    assert sharpness.gradients("multistep_sam", 10) == 40
    assert sharpness.gradients("sassha", 10) == 22
    assert sharpness.gradients("sam", 10) == 20
    gamma = inspect.signature(sharpness.esam).parameters["gamma"].default
    assert sharpness.gradients("esam", 10) == pytest.approx(10 * (1 + 1 / 3 + gamma))
    with pytest.raises(ValueError, match="name='nosuch': must be one of asam"):
        sharpness.gradients("nosuch", 10)
