"""A run judged at its own rate, radius and batches; what its numbers say in sentences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import losses
from samscale.flatness import Point, stability, thresholds
from samscale.flatness.remarks import remarks

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(1)
RUN = {"learning_rate": 0.05, "train_rho": 0.02, "batch_size": 8}


def measured(**changes):
    """Of the curved network, away from interpolation: its Hessians have negative eigenvalues."""
    params, data = curved.point()
    point = Point(losses, params, data, curved.outputs, curved.criterion, **(RUN | changes))
    return point, thresholds.linear_stability(point, KEY)


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 3}, {"train_rho": 0.0}, {"train_rho": 0.0, "batch_size": 1}, {"batch_size": 1}],
)
def test_the_runs_own_rate_radius_and_batches_are_judged(changes):
    point, found = measured(**changes)
    g = np.asarray(curved.gauss_newtons(point.params, point.data))
    eta, rho, n, B = point.learning_rate, point.train_rho, len(g), point.batch_size
    share = (n - B) / (B * (n - 1))
    square = g.mean(0) @ g.mean(0) + share * ((g @ g).mean(0) - g.mean(0) @ g.mean(0))
    mean = g.mean(0) + rho * square
    if rho:
        rows = itertools.combinations(range(n), B)
        every = np.stack([g[list(batch)].mean(0) for batch in rows])
        k = every + rho * every @ every
        square = (k @ k).mean(0)
    grown = np.linalg.eigvalsh(-2 * eta * mean + eta**2 * square)[-1]
    assert found["excess"] == pytest.approx(grown, abs=1e-4)
    assert found["mean_rate"] == pytest.approx(eta * np.linalg.eigvalsh(mean)[-1], rel=1e-3)
    assert found["stable"] == 1
    assert found["rate_used"] == eta


def test_of_more_batches_than_are_taken_one_by_one_the_excess_is_bounded():
    """735,471 batches of 8 of 24; beyond the safe rate, where it is searched for."""
    safe = measured()[1]["safe_rate"]
    point, found = measured(learning_rate=3 * safe)
    g = np.asarray(curved.gauss_newtons(point.params, point.data))
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(24)[:8] for _ in range(2000)])
    b = g[rows].mean(1)
    k = b + point.train_rho * b @ b
    eta = point.learning_rate
    sampled = np.linalg.eigvalsh((-2 * eta * k + eta**2 * k @ k).mean(0))[-1]
    assert found["excess"] > sampled
    point, found = measured(learning_rate=1.9 / found["mean_rate"] * eta)
    assert found["stable"] == -1  # the mean does not grow, the mean square does
    assert (
        "unstable: the mean square grows (condition (5) is exceeded by at most "
        in remarks(point, found)[0]
    )


@pytest.mark.parametrize("factor, verdict", [(0.95, 1), (1.05, 0), (100, -1)])
def test_the_verdict_turns_at_the_largest_stable_rate(factor, verdict):
    rate = measured()[1]["largest_stable_rate_sgd"]
    changes = {"learning_rate": factor * rate, "train_rho": 0.0, "batch_size": 1}
    assert measured(**changes)[1]["stable"] == verdict


def test_a_point_without_a_rate_is_not_judged():
    point, found = measured(learning_rate=0.0)
    assert "stable" not in found
    assert remarks(point, found) == []


def test_a_run_is_told_of_its_verdict_and_bounds_in_sentences():
    point, found = measured(aside=("momentum 0.9",))
    verdict, bounds, aside = remarks(point, found)
    over = "over all batches of 8 of the 24 examples measured: linearly stable"
    assert f"rate 0.05, for unnormalized SAM, rho = 0.02, {over}" in verdict
    a = stability.bounds(0.05, 0.02)["a"]
    assert f"a = {found['a']:.4g} <= {a:.4g}" in bounds
    assert "s4 = " in bounds
    assert "not valid" not in bounds
    assert "momentum 0.9" in aside


def test_a_run_is_told_how_far_it_is_from_either_limit():
    point, found = measured(train_rho=0.0, batch_size=1)
    grows = 2 * point.learning_rate / found["mean_rate"]
    limits = f"(stable up to {found['safe_rate']:.3g} at least; the mean grows beyond {grows:.3g})"
    assert limits in remarks(point, found)[0]
    faster = remarks(*measured(train_rho=0.0, batch_size=1, learning_rate=1.1 * grows))[0]
    assert "unstable: the mean square grows (condition (5) is exceeded by " in faster


def test_a_run_of_normalized_sam_is_told_that_the_verdict_is_of_another_method():
    sentences = remarks(*measured(unlike="sam"))
    assert len(sentences) == len(remarks(*measured())) + 1
    assert "is about unnormalized SAM (usam) of the same radius, not about sam." in sentences[2]


def test_beyond_half_the_rate_the_bounds_on_s_are_not_held_against_a_run():
    bounds = remarks(*measured(train_rho=0.025))[1]
    assert "not valid for rho >= eta / 2" in bounds
    assert "s2 =" not in bounds


def test_one_example_has_no_non_uniformity_that_its_error_does_not_cover():
    with jax.enable_x64(False):
        for seed in range(5):
            params, data = curved.point(jnp.float32, seed)
            one = jax.tree.map(lambda a: a[:1], data)
            point = Point(losses, params, one, curved.outputs, curved.criterion)
            found = thresholds.linear_stability(point, KEY)
            for k in (2, 3, 4):
                floor = (np.finfo(np.float32).eps * found["a"] ** k) ** (1 / k)
                assert found[f"s{k}_residual"] >= max(found[f"s{k}"], floor)


def test_examples_unlike_each_other_have_an_error_that_is_the_residuals():
    found = stability.NonUniformity(2.0, 8.0, None, 0.12, 1)
    assert stability.uncertainty(found, 3, 2.0, jnp.float64) == pytest.approx(0.01, rel=0.01)
    assert stability.uncertainty(found, 3, 400.0, jnp.float32) > 2  # 8 of 6e7
