"""What is said of all batches of a size is held against all of them, one by one."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

import curved
from samscale.flatness import (
    Point,
    batches,
    dynamics,
    maps,
    operators,
    stability,
    thresholds,
)

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(3)
dense = jax.jit(operators.matrix)  # one program for all operators of a structure
PROBLEMS, SIZE = 200, 3
FEW, MANY = batches.MOST, 0  # batches taken one by one, or bounded


def problems():
    """(hessians, eta, rho, B): random positive semi-definite ones, near the edge of stability."""
    rng = np.random.default_rng(0)
    for i in range(PROBLEMS):
        n = (4, 6)[i % 2]
        rank = 1 if i % 4 < 2 else 2
        roots = rng.normal(size=(n, SIZE, rank)) * rng.lognormal(0, 1, (n, 1, 1))
        h = np.einsum("nar,nbr->nab", roots, roots)
        rho, batch_size = rng.choice([0.0, 0.05, 0.3, 1.0]), int(rng.integers(1, n + 1))
        b = of_all(h, batch_size)
        edge = 2 / np.linalg.eigvalsh((b + rho * b @ b).mean(0))[-1]
        yield h, edge * rng.uniform(0.02, 1.2), rho, batch_size


def of_all(h, batch_size):
    """(m, P, P): the mean of every batch."""
    rows = itertools.combinations(range(len(h)), batch_size)
    return np.stack([h[list(batch)].mean(0) for batch in rows])


def moments(h):
    """``moment`` of dense matrices, as ``maps.hessian_moments`` gives it of a loss."""

    def moment(c, rows=None, whole=()):
        each = h if rows is None else h[rows].mean(1)
        total = sum(c * np.linalg.matrix_power(each, k).mean(0) for k, c in enumerate(c))
        mean = h.mean(0)
        total = total + sum(d * np.linalg.matrix_power(mean, k) for k, d in enumerate(whole))
        return operators.dense(total)

    return moment


def top(a):
    return np.linalg.eigvalsh(a)[..., -1]


def limits(h, batch_size):
    each, mean = top(h), h.mean(0)
    v = batches.share(len(h), batch_size) * ((h @ h).mean(0) - mean @ mean)
    c = batches.sharpest(each, top(mean), batch_size)
    if batches.every(len(h), batch_size) is not None:
        c = top(of_all(h, batch_size)).max()
    return batches.Limits(top(mean), each.max(), c, max(top(v), 0.0))


def judged(h, eta, rho, batch_size):
    """As ``thresholds`` does, from dense matrices."""
    n, moment, most = len(h), moments(h), limits(h, batch_size)
    mean = maps.step_mean(moment, n, rho, batch_size)

    def grown(v):
        values = np.einsum("p,npq,q->n", v, h, v)
        return batches.square_growth(values, float(v @ mean(v)), eta, rho, batch_size)

    growing = maps.step_growth(moment, n, eta, rho, batch_size, most)
    safe = batches.safe_rate(most, n, rho, batch_size)
    return stability.judged(mean, growing, KEY, eta, 1e-2, safe, top(dense(mean)), grown)


@pytest.mark.parametrize("most", [FEW, MANY])
def test_no_verdict_is_wrong_over_all_batches_and_most_are_given(most, monkeypatch):
    monkeypatch.setattr(batches, "MOST", most)
    told = []
    for h, eta, rho, batch_size in problems():
        found = judged(h, eta, rho, batch_size)
        grows = dynamics.exact_growth(h, eta, rho, batch_size)
        told.append(found.stable)
        assert grows <= 1e-9 if found.stable is True else True  # rounding
        assert grows > 0 if found.stable is False else True
    assert np.mean([stable is True for stable in told]) > 0.4
    assert np.mean([stable is False for stable in told]) > 0.4
    assert np.mean([stable is None for stable in told]) < 0.05


@pytest.mark.parametrize("most", [FEW, MANY])
def test_the_safe_rate_is_safe_over_all_batches(most, monkeypatch):
    monkeypatch.setattr(batches, "MOST", most)
    of_possible = []
    for h, _, rho, batch_size in problems():
        rate = batches.safe_rate(limits(h, batch_size), len(h), rho, batch_size)
        b = of_all(h, batch_size)
        k = b + rho * b @ b
        mean, square = k.mean(0), (k @ k).mean(0)
        assert top(-2 * rate * mean + rate**2 * square) <= 1e-12 * top(square)  # rounding
        of_possible.append(rate / (2 / linalg.eigh(square, mean, eigvals_only=True)[-1]))
    assert np.mean(np.array(of_possible) > 0.5) > 0.7  # a bound that says something


def test_growth_is_bounded_from_above_where_batches_are_many(monkeypatch):
    for h, eta, rho, batch_size in problems():
        monkeypatch.setattr(batches, "MOST", FEW)
        exact = maps.step_growth(moments(h), len(h), eta, rho, batch_size)
        monkeypatch.setattr(batches, "MOST", MANY)
        above = maps.step_growth(moments(h), len(h), eta, rho, batch_size, limits(h, batch_size))
        exact, above = map(np.asarray, map(dense, (exact, above)))
        assert top(exact - above) <= 1e-12 * np.abs(above).max()  # rounding


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_of_one_dimension_the_growth_that_is_proved_is_the_exact_one(rho):
    values = np.random.default_rng(0).lognormal(size=6)
    h = values[:, None, None]
    for batch_size in (1, 2, 5, 6):
        b = of_all(h, batch_size)
        mean = (b + rho * b**2).mean()
        for eta in (0.1, 1.0, 3.0):
            proved = batches.square_growth(values, mean, eta, rho, batch_size)
            exact = dynamics.exact_growth(h, eta, rho, batch_size)
            assert 1 + proved == pytest.approx(10**exact, rel=1e-9)


def test_no_direction_proves_more_growth_than_there_is():
    rng = np.random.default_rng(1)
    for h, eta, rho, batch_size in problems():
        v = rng.normal(size=SIZE)
        v /= np.linalg.norm(v)
        b = of_all(h, batch_size)
        mean = v @ (b + rho * b @ b).mean(0) @ v
        values = np.einsum("p,npq,q->n", v, h, v)
        proved = batches.square_growth(values, mean, eta, rho, batch_size)
        exact = 10 ** dynamics.exact_growth(h, eta, rho, batch_size)
        assert 1 + proved <= exact * (1 + 1e-9)


def test_limits_are_not_exceeded():
    for h, _, _, batch_size in problems():
        each = top(h)
        bound = batches.sharpest(each, top(h.mean(0)), batch_size)
        assert top(of_all(h, batch_size)).max() <= bound * (1 + 1e-12)


@pytest.mark.parametrize("n, batch_size", [(1, 1), (2, 1), (3, 3), (5, 2), (7, 4), (9, 5)])
def test_powers_of_means_are_those_over_all_batches(n, batch_size):
    values = np.random.default_rng(n).lognormal(size=n)
    rows = batches.every(n, batch_size)
    assert len(rows) == math.comb(n, batch_size)
    exact = [(values[rows].mean(1) ** k).mean() for k in range(1, 5)]
    np.testing.assert_allclose(batches.mean_powers(values, batch_size), exact, rtol=1e-12)


def test_of_too_many_batches_none_is_listed():
    assert batches.every(1000, 128) is None
    assert len(batches.every(1000, 1000)) == 1


def four_examples(**changes):
    """Least squares; two sharp examples that are identical, a = 10, in different halves."""
    x = np.sqrt(10.0) * np.array([[1.0, 0], [0, 0.2], [1.0, 0], [0, 0.1]])
    outputs = lambda w, batch: batch["x"] @ w[:, None]
    criterion = lambda z, batch: jnp.square(z[:, 0] - batch["y"]) / 2
    losses = lambda w, batch: criterion(outputs(w, batch), batch)
    point = Point(losses, jnp.ones(2), {"x": x, "y": x.sum(1)}, outputs, criterion, batch_size=2)
    return point._replace(**{"train_rho": 0.5, "learning_rate": 0.11} | changes), x


@pytest.mark.parametrize("most", [FEW, MANY])
def test_sharp_examples_that_one_shuffle_keeps_apart_are_seen_together(most, monkeypatch):
    """In either half of the data only one is: 2 / 5 (1 + 2.5) = 0.114 would be safe for those."""
    monkeypatch.setattr(batches, "MOST", most)
    point, x = four_examples()
    found = thresholds.linear_stability(point, KEY)
    h = np.einsum("np,nq->npq", x, x)
    assert dynamics.exact_growth(h, 0.11, 0.5, 2) > 0.5
    assert found["mean_rate"] > 2
    assert found["stable"] == -1
    assert 2 / (10 * (1 + 0.5 * 10)) <= found["safe_rate"] < 0.1
    assert dynamics.exact_growth(h, found["safe_rate"], 0.5, 2) <= 0
    below = thresholds.linear_stability(four_examples(learning_rate=found["safe_rate"])[0], KEY)
    assert below["stable"] == 1


def test_without_outputs_many_batches_of_sam_are_not_judged_by_some_of_them():
    """Nothing is known of single examples there, so nothing bounds 735,471 batches of 8 of 24."""
    w, data, _ = curved.regression(24)
    run = {"learning_rate": 1e-6, "train_rho": 0.02, "batch_size": 8}
    found = thresholds.linear_stability(Point(curved.least_squares, w, data, **run), KEY)
    assert found["stable"] == 0
    assert not {"excess", "safe_rate"} & found.keys()
    fast = Point(curved.least_squares, w, data, **(run | {"learning_rate": 10.0}))
    assert thresholds.linear_stability(fast, KEY)["stable"] == -1
