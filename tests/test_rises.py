"""The measures of rises: in cubes, in shares of weights, of logits of one length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from hills import KEY, linear
from samscale.flatness import Point, measured, rises

pytestmark = pytest.mark.usefixtures("in_float64")
ADAPTIVE = (
    "adaptive_sam_gap",
    "adaptive_worst_case",
    "adaptive_worst_case_linf",
    "adaptive_average_case",
)
NORMALIZED = ("normalized_worst_case", "normalized_worst_case_linf")


def outputs(params, batch):
    return jax.nn.relu(batch["x"] @ params["in"]) @ params["out"]


def losses(params, batch):
    return curved.criterion(outputs(params, batch), batch)


def classifier(**changes):
    """A ReLU network without biases, as a point of doubles."""
    _, data = curved.point()
    k = jax.random.split(KEY)
    draw = lambda key, *shape: jax.random.normal(key, shape, jnp.float64)
    params = {"in": draw(k[0], 4, 6), "out": draw(k[1], 6, curved.CLASSES)}
    return Point(losses, params, data, outputs, curved.criterion, rho=0.03)._replace(**changes)


def of(point):
    return measured(point, KEY, ["balls"])


def scaled(point, hidden, last):
    params = {"in": hidden * point.params["in"], "out": last * point.params["out"]}
    return point._replace(params=params)


@pytest.mark.parametrize("mask", [None, np.array([1, 0, 1, 1])])
def test_on_a_slope_every_rise_is_a_dual_norm(mask):
    w, x = jnp.array([1.0, -2.0, 0.5, 3.0]), jax.random.normal(KEY, (9, 4))
    found = of(Point(linear, w, x, mask=mask, rho=0.2))
    kept = np.ones(4) if mask is None else mask
    g = np.array(x).mean(0) * kept
    shares, corner = np.abs(w) * g, 0.2 / kept.sum() ** 0.5
    assert found.pop("adaptive_average_case_se") == pytest.approx(0, abs=1e-12)
    exact = {
        "worst_case_linf": corner * np.abs(g).sum(),
        "adaptive_sam_gap": 2 * np.linalg.norm(shares),
        "adaptive_worst_case": 2 * np.linalg.norm(shares),
        "adaptive_worst_case_linf": 10 * corner * np.abs(shares).sum(),
        "adaptive_average_case": 0,
    }
    assert found == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_the_cube_lies_inside_the_ball():
    here = classifier()
    inside = of(here)["worst_case_linf"]
    assert 0 < inside <= measured(here, KEY, ["sharpness"])["worst_case"]


def test_layers_rescaled_change_the_cube_alone():
    here = classifier()
    before, after = of(here), of(scaled(here, 3.0, 1 / 3))
    assert abs(after["worst_case_linf"] / before["worst_case_linf"] - 1) > 0.05
    for name in (*ADAPTIVE, *NORMALIZED):
        assert after[name] == pytest.approx(before[name], rel=1e-8), name


def test_longer_logits_change_all_but_the_normalized():
    here = classifier()
    before, after = of(here), of(scaled(here, 1.0, 3.0))
    for name in ADAPTIVE:
        assert abs(after[name] / before[name] - 1) > 0.05, name
    for name in NORMALIZED:
        assert after[name] == pytest.approx(before[name], rel=1e-8), name


def test_logits_are_centred_and_of_unit_length():
    here = classifier()
    z = np.array(outputs(here.params, here.data))
    z -= z.mean(1, keepdims=True)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    exact = curved.criterion(z, here.data)
    of_unit = rises.of_normalized(here)
    np.testing.assert_allclose(of_unit(here.params, here.data), exact, rtol=1e-12)  # of doubles


def test_logits_of_no_length_have_a_gradient():
    here = classifier()
    nowhere = {**here.params, "out": jnp.zeros_like(here.params["out"])}
    mean = lambda params: rises.of_normalized(here)(params, here.data).mean()
    value, grads = jax.value_and_grad(mean)(nowhere)
    assert value == pytest.approx(np.log(curved.CLASSES))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def squared(z, batch):
    return ((z - batch["y"][:, None]) ** 2).sum(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": None},
        {"criterion": None},
        {"outputs": lambda p, batch: outputs(p, batch)[:, :1]},
        {"criterion": squared, "losses": lambda p, batch: squared(outputs(p, batch), batch)},
    ],
    ids=["no outputs", "no criterion", "one output", "squared errors"],
)
def test_what_has_no_logits_is_not_normalized(changes):
    here = classifier(**changes)
    assert rises.of_normalized(here) is None
    assert {*of(here)} == {"worst_case_linf", *ADAPTIVE, "adaptive_average_case_se"}


def test_points_of_one_task_share_their_programs():
    one, other = (rises.of_normalized(classifier()) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_a_mask_may_be_of_scalars():
    params = classifier().params
    assert rises.moving(classifier()) == 42
    assert rises.moving(classifier(mask={"in": jnp.ones(()), "out": jnp.zeros(())})) == 24
    full = jax.tree.map(lambda w: jnp.ones(w.shape).at[0].set(0), params)
    assert rises.moving(classifier(mask=full)) == 42 - 6 - 3
