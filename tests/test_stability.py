"""Linear stability: dense moments, thresholds that simulated dynamics confirm, bounds that hold."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import least_squares, losses, power
from samscale.flatness import dynamics, maps, operators, output_space, stability

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(1)
FEATURES, EXAMPLES = 3, 12


def regression():
    x = jax.random.normal(jax.random.key(0), (EXAMPLES, FEATURES))
    w = jnp.ones(FEATURES)
    return w, {"x": x, "y": x @ w}, jnp.einsum("np,nq->npq", x, x)


def step_maps(h, eta, rho):
    """I - eta K of each example."""
    h = np.asarray(h)
    return np.eye(h.shape[-1]) - eta * (h + rho * h @ h)


def top(a):
    return float(np.linalg.eigvalsh(a)[-1])


def mean_square_factor(h, eta, rho):
    """The exact growth of E[x x^T] a step: the spectral radius of E[A (x) A]."""
    return 10 ** dynamics.exact_growth(h, eta, rho)


def threshold(stays):
    """The largest eta for which ``stays(eta)``."""
    low, high = 1e-6, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stays(middle) else (low, middle)
    return low


@pytest.mark.parametrize("k", [2, 3, 4])
def test_non_uniformity_is_that_of_the_dense_hessians(k):
    params, data = curved.point()
    h = curved.hessians(losses, params, data)
    exact = np.linalg.eigvalsh(power(h, k).mean(0) - power(h.mean(0), k))
    found = stability.non_uniformity(losses, params, data, KEY, k, tolerance=1e-7)
    assert found.value == pytest.approx(exact[-1] ** (1 / k), rel=1e-9)
    if k % 2:
        assert found.smallest == pytest.approx(exact[0], rel=1e-9)
    else:
        assert found.smallest is None


def test_examples_alike_are_uniform():
    params, data = curved.point()
    same = jax.tree.map(lambda a: jnp.broadcast_to(a[:1], a.shape), data)
    assert stability.non_uniformity(losses, params, same, KEY).value < 1e-6


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.5])
def test_condition_five_as_printed_is_the_compact_one(rho):
    params, data = curved.point()
    h, eta = curved.hessians(losses, params, data), 0.3
    H, M = h.mean(0), [power(h, k).mean(0) for k in range(5)]
    first = jnp.eye(len(H)) - eta * H - eta * rho * H @ H
    printed = (
        first @ first
        + eta * (eta - 2 * rho) * (M[2] - H @ H)
        + 2 * eta**2 * rho * (M[3] - power(H, 3))
        + eta**2 * rho**2 * (M[4] - power(H, 4))
    )
    op = maps.growth(*maps.map_moments(losses, params, data, rho), eta)
    mine = jax.jit(operators.matrix)(op) + jnp.eye(len(H))
    np.testing.assert_allclose(mine, printed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 12])
def test_batches_without_replacement_have_the_moments_of_all_their_kinds(batch_size):
    w, data, h = regression()
    mean, square = maps.map_moments(least_squares, w, data, batch_size=batch_size)
    kinds = [
        np.asarray(h)[list(rows)].mean(0) for rows in itertools.combinations(range(12), batch_size)
    ]
    np.testing.assert_allclose(operators.matrix(mean), np.mean(kinds, 0), rtol=1e-9)
    exact = np.mean([b @ b for b in kinds], 0)
    np.testing.assert_allclose(operators.matrix(square), exact, rtol=1e-9)


def test_batches_of_sam_average_over_their_own_maps():
    w, data, h = regression()
    mean, square = maps.map_moments(least_squares, w, data, 0.3, batch_size=4, key=KEY)
    order = jax.random.permutation(KEY, 12)
    b = h[order].reshape(3, 4, FEATURES, FEATURES).mean(1)
    k = b + 0.3 * b @ b
    np.testing.assert_allclose(operators.matrix(mean), k.mean(0), rtol=1e-9)
    np.testing.assert_allclose(operators.matrix(square), (k @ k).mean(0), rtol=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3])
def test_the_largest_stable_rate_is_where_the_condition_fails(rho):
    w, data, h = regression()
    found = stability.largest_stable_rate(*maps.map_moments(least_squares, w, data, rho), KEY)
    a = lambda eta: step_maps(h, eta, rho)
    exact = threshold(lambda eta: top((a(eta) @ a(eta)).mean(0)) <= 1)
    assert found == pytest.approx(exact, rel=1e-4)


def verdict(losses, params, data, eta, rho=0.0, **batch):
    moments = maps.map_moments(losses, params, data, rho, **batch)
    return stability.verdict(*moments, KEY, eta)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_verdicts_keep_their_word(rho):
    w, data, h = regression()
    surely = stability.largest_stable_rate(*maps.map_moments(least_squares, w, data, rho), KEY)
    K = h + rho * h @ h
    mean = 2 / top(K.mean(0))
    rates = 0.98 * surely, 1.05 * surely, 1.02 * mean
    below, between, above = (verdict(least_squares, w, data, eta, rho) for eta in rates)
    assert below.stable is True
    assert "linearly stable" in below.words
    assert between.stable is None
    assert above.stable is False
    assert mean_square_factor(h, 0.98 * surely, rho) <= 1
    assert mean_square_factor(h, 1.02 * mean, rho) > 1
    assert above.mean_rate == pytest.approx(2.04, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_the_growth_is_one_polynomial_of_moments(rho, batch_size):
    w, data, h = regression()
    moment = maps.hessian_moments(least_squares, w, data)
    mean, growing = maps.step_growth(moment, EXAMPLES, 0.7, rho, batch_size)
    these, square = maps.step_moments(moment, EXAMPLES, rho, batch_size)
    whole = maps.growth(these, square, 0.7)
    np.testing.assert_allclose(*map(operators.matrix, (growing, whole)), atol=1e-12)
    every = itertools.combinations(range(EXAMPLES), batch_size)
    b = jnp.stack([h[np.array(rows)].mean(0) for rows in every])
    np.testing.assert_allclose(operators.matrix(mean), (b + rho * b @ b).mean(0), atol=1e-12)


def few(n):
    """The curved network at n examples, and its blocks."""
    params, data = curved.point()
    data = jax.tree.map(lambda a: a[:n], data)
    return params, data, output_space.blocks(curved.outputs, curved.criterion, params, data)


@pytest.mark.parametrize("n", [1, 8, 24])
def test_the_largest_eigenvalue_of_each_gauss_newton_matrix_is_the_dense_one(n):
    params, data, blocks = few(n)
    exact = np.linalg.eigvalsh(curved.gauss_newtons(params, data))[:, -1]
    np.testing.assert_allclose(output_space.largest(blocks), exact, rtol=1e-9)


def test_of_a_criterion_that_bends_down_no_largest_is_told():
    params, data = curved.point()
    down = lambda z, batch: -jnp.square(z).sum(1)
    assert output_space.largest(output_space.blocks(curved.outputs, down, params, data)) is None


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("n", [8, 24])
def test_the_sharpest_example_decides_the_stable_rate_of_many_parameters(rho, n):
    """40 parameters, 3 outputs an example: at 24 they cannot all be moved alone."""
    params, data, blocks = few(n)
    safe = stability.safe_rate(output_space.largest(blocks), rho)
    g = np.asarray(curved.gauss_newtons(params, data))
    k = g + rho * g @ g
    exact = threshold(lambda eta: top((-2 * eta * k + eta**2 * k @ k).mean(0)) <= 1e-12)
    assert safe == pytest.approx(exact, rel=1e-4) if n == 8 else safe < 0.999 * exact


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_what_is_safe_for_the_sharpest_example_is_so_for_batches(batch_size):
    params, data, blocks = few(8)
    rate = stability.safe_rate(output_space.largest(blocks), 0.1)
    g = np.asarray(curved.gauss_newtons(params, data)).reshape(-1, batch_size, 40, 40).mean(1)
    k = g + 0.1 * g @ g
    assert top((-2 * rate * k + rate**2 * k @ k).mean(0)) <= 1e-12


def test_nothing_that_bends_is_safe_at_any_rate():
    assert stability.safe_rate(np.zeros(3), 0.1) == math.inf


@pytest.mark.parametrize("whole", [(), (0.5,), (0, 2.0), (0, 0, -1), (0.1, 0.2, 0.3, 0.4, -0.5)])
def test_powers_of_the_mean_add_to_moments(whole):
    params, data, blocks = few(24)
    g = np.asarray(curved.gauss_newtons(params, data))
    c = (0.3, 0.0, 2.0, -1.0)
    exact = sum(c[k] * power(g, k).mean(0) for k in range(4))
    exact = exact + sum(d * np.linalg.matrix_power(g.mean(0), k) for k, d in enumerate(whole))
    op = output_space.moments(curved.outputs, params, data, blocks, c, whole)
    np.testing.assert_allclose(jax.jit(operators.matrix)(op), exact, rtol=1e-9, atol=1e-9)
    if all(d == 0 for d in whole[:1]):
        ours = maps.hessian_moments(losses, params, data)(c, whole=whole)
        h = np.asarray(curved.hessians(losses, params, data))
        exact = sum(c[k] * power(h, k).mean(0) for k in range(4))
        exact = exact + sum(d * np.linalg.matrix_power(h.mean(0), k) for k, d in enumerate(whole))
        np.testing.assert_allclose(jax.jit(operators.matrix)(ours), exact, rtol=1e-9, atol=1e-9)


def test_orders_beyond_the_fourth_are_refused():
    params, data, blocks = few(8)
    for orders in (((0,) * 6,), ((0, 1), (0,) * 6)):
        with pytest.raises(ValueError, match="coefficients: must be of orders up to 4"):
            output_space.moments(curved.outputs, params, data, blocks, *orders)


@pytest.mark.parametrize("group", [1, 4, 24])
def test_gauss_newton_matrices_of_batches_have_the_moments_of_their_means(group):
    params, data = curved.point()
    g = curved.gauss_newtons(params, data).reshape(-1, group, *2 * (40,)).mean(1)
    c = (0.5, 1.0, -0.2, 0.03, 0.01)
    exact = sum(c[k] * power(g, k).mean(0) for k in range(5))
    at = curved.outputs, curved.criterion, params, data
    op = output_space.batch_moments(*at, c, group)
    np.testing.assert_allclose(jax.jit(operators.matrix)(op), exact, rtol=1e-9, atol=1e-9)


def test_a_batch_that_is_not_full_is_left_out():
    params, data = curved.point()
    at = curved.outputs, curved.criterion, params
    whole, cut = data, jax.tree.map(lambda a: a[:20], data)
    ops = [output_space.batch_moments(*at, d, (0, 1, 0.3), 10) for d in (whole, cut)]
    np.testing.assert_allclose(*map(operators.matrix, ops), rtol=1e-12)


def test_a_saddle_is_unstable_at_any_rate():
    saddle = lambda w, batch: (w[0] ** 2 - w[1] ** 2) / 4 * jnp.ones(len(batch))
    found = verdict(saddle, jnp.zeros(2), jnp.zeros(4), 0.1)
    assert found.stable is False
    assert stability.largest_stable_rate(
        *maps.map_moments(saddle, jnp.zeros(2), jnp.zeros(4)), KEY
    ) == pytest.approx(0)


def test_a_direction_that_nothing_bends_does_not_make_a_point_unstable():
    _, data, _ = regression()
    wide = {"x": jnp.pad(data["x"], ((0, 0), (0, 4))), "y": data["y"]}
    found = verdict(least_squares, jnp.ones(7), wide, 0.05)
    assert found.stable is True
    assert abs(found.excess) < 1e-9


def stable_instances(rho_over_eta, count=300):
    """Random positive Hessians of few examples, at a rate that just satisfies (5)."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        roots = rng.normal(size=(4, 3, rng.integers(1, 4))) * rng.lognormal(0, 1, (4, 1, 1))
        h = np.einsum("nar,nbr->nab", roots, roots)

        def stays(eta, h=h):
            a = np.eye(3) - eta * (h + rho_over_eta * eta * h @ h)
            return np.linalg.eigvalsh((a @ a).mean(0))[-1] <= 1

        eta = threshold(stays)
        M = lambda k, h=h: np.linalg.matrix_power(h, k).mean(0)
        H = h.mean(0)
        s = {k: max(top(M(k) - np.linalg.matrix_power(H, k)), 0) ** (1 / k) for k in (2, 3, 4)}
        yield eta, rho_over_eta * eta, top(H), s


@pytest.mark.parametrize("rho_over_eta", [0.1, 0.45])
def test_the_papers_bounds_hold_where_they_are_valid(rho_over_eta):
    for eta, rho, a, s in stable_instances(rho_over_eta):
        limit = stability.bounds(eta, rho)
        assert a <= limit["a"] * (1 + 1e-9)
        for k in (2, 3, 4):
            assert s[k] <= limit[f"s{k}"] * (1 + 1e-9)


@pytest.mark.parametrize("rho_over_eta", [0.1, 0.6, 2.0])
def test_two_bounds_hold_for_every_radius(rho_over_eta):
    for eta, rho, a, s in stable_instances(rho_over_eta):
        limit = stability.bounds(eta, rho)
        assert a * (1 + rho * a) <= 2 / eta * (1 + 1e-9)
        assert s[2] <= limit["s2_any"] * (1 + 1e-9)


def test_the_bound_for_every_radius_is_reached_by_rare_and_sharp_examples():
    """H is h once in a while, else 0, just as often as the mean can bear."""
    eta, rho, h = 0.1, 0.2, 1e4
    p = 2 / eta / (h + rho * h**2)
    s2 = math.sqrt(p * h**2 * (1 - p))
    assert stability.bounds(eta, rho)["s2_any"] == pytest.approx(s2, rel=1e-3)


def test_beyond_half_the_rate_the_printed_bound_on_s2_is_false():
    """One example, H = 1, eta = 0.1, rho = 0.2: stable, s2 = 0, yet 1/(eta (eta - 2 rho)) < 0."""
    eta, rho = 0.1, 0.2
    one = {"x": jnp.ones((1, 1)), "y": jnp.ones(1)}
    assert verdict(least_squares, jnp.ones(1), one, eta, rho).stable is True
    assert 1 / (eta * (eta - 2 * rho)) < 0
    assert stability.bounds(eta, rho)["s2"] == math.inf


def test_without_a_radius_the_bounds_are_those_of_sgd():
    limit = stability.bounds(0.1)
    assert limit["a"] == pytest.approx(20)
    assert limit["s2"] == pytest.approx(10)
    assert stability.bounds(0.1, 1e-12)["a"] == pytest.approx(20)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p, d: stability.non_uniformity(losses, p, d, KEY, 1), "k=1: must be at least 2"),
        (lambda p, d: maps.map_moments(losses, p, d, 0.1, 5), "batch_size=5: must divide"),
        (lambda p, d: maps.map_moments(losses, p, d, 0.1, 4), "key=None: must be a random"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(*curved.point())


def test_a_direction_that_bends_little_may_decide_the_stable_rate():
    """At half the rate of the one that bends most, beside many others and many that do not bend."""
    others = jnp.concatenate([jnp.linspace(0.1, 1, 98), jnp.zeros(200)])
    spread = lambda *of: jnp.concatenate([jnp.array(of), others])
    mean, square = (operators.dense(jnp.diag(d)) for d in (spread(1, 2e-3), spread(2, 8e-3)))
    for i in range(4):
        key = jax.random.key(i)
        rate = stability.largest_stable_rate(mean, square, key, tolerance=1e-2)
        assert rate == pytest.approx(0.5, rel=5e-2)
