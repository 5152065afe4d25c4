"""Linear stability: dense moments, thresholds that simulated dynamics confirm, bounds that hold."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import least_squares, losses, power
from samscale import sharpness
from samscale.flatness import dual, dynamics, maps, operators, output_space, stability

pytestmark = pytest.mark.usefixtures("in_float64")

KEY = jax.random.key(1)
FEATURES, EXAMPLES = 3, 12


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


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.3])
def test_the_largest_stable_rate_is_where_the_condition_fails(rho):
    w, data, h = curved.regression()
    found = stability.largest_stable_rate(*maps.map_moments(least_squares, w, data, rho), KEY)
    a = lambda eta: step_maps(h, eta, rho)
    exact = threshold(lambda eta: top((a(eta) @ a(eta)).mean(0)) <= 1)
    assert found == pytest.approx(exact, rel=1e-4)


def verdict(losses, params, data, eta, rho=0.0, **batch):
    moments = maps.map_moments(losses, params, data, rho, **batch)
    return stability.verdict(*moments, KEY, eta)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_verdicts_keep_their_word(rho):
    w, data, h = curved.regression()
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


@pytest.mark.parametrize("n", [1, 8, 24])
def test_the_largest_eigenvalue_of_each_gauss_newton_matrix_is_the_dense_one(n):
    params, data, blocks = curved.few(n)
    exact = np.linalg.eigvalsh(curved.gauss_newtons(params, data))[:, -1]
    np.testing.assert_allclose(dual.halves(blocks).values[:, -1], exact, rtol=1e-9)  # rounding


def test_of_a_criterion_that_bends_down_no_largest_is_told():
    params, data = curved.point()
    down = lambda z, batch: -jnp.square(z).sum(1)
    assert dual.halves(output_space.blocks(curved.outputs, down, params, data)) is None


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("n", [8, 24])
def test_the_sharpest_example_decides_the_stable_rate_of_many_parameters(rho, n):
    """40 parameters, 3 outputs an example: at 24 they cannot all be moved alone."""
    params, data, blocks = curved.few(n)
    safe = stability.safe_rate(dual.halves(blocks).values[:, -1], rho)
    g = np.asarray(curved.gauss_newtons(params, data))
    k = g + rho * g @ g
    exact = threshold(lambda eta: top((-2 * eta * k + eta**2 * k @ k).mean(0)) <= 1e-12)
    assert safe == pytest.approx(exact, rel=1e-4) if n == 8 else safe < 0.999 * exact


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_what_is_safe_for_the_sharpest_example_is_so_for_batches(batch_size):
    params, data, blocks = curved.few(8)
    rate = stability.safe_rate(dual.halves(blocks).values[:, -1], 0.1)
    g = np.asarray(curved.gauss_newtons(params, data)).reshape(-1, batch_size, 40, 40).mean(1)
    k = g + 0.1 * g @ g
    assert top((-2 * rate * k + rate**2 * k @ k).mean(0)) <= 1e-12


def test_nothing_that_bends_is_safe_at_any_rate():
    assert stability.safe_rate(np.zeros(3), 0.1) == math.inf


def test_a_saddle_is_unstable_at_any_rate():
    saddle = lambda w, batch: (w[0] ** 2 - w[1] ** 2) / 4 * jnp.ones(len(batch))
    found = verdict(saddle, jnp.zeros(2), jnp.zeros(4), 0.1)
    assert found.stable is False
    assert stability.largest_stable_rate(
        *maps.map_moments(saddle, jnp.zeros(2), jnp.zeros(4)), KEY
    ) == pytest.approx(0)


def test_a_direction_that_nothing_bends_does_not_make_a_point_unstable():
    _, data, _ = curved.regression()
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


@pytest.mark.parametrize("rho", [0.0, 0.02, 0.5, 5.0])
def test_a_minimum_at_the_bound_on_a_is_just_stable(rho):
    """One example of curvature a in one direction, at an eta of 0.1 that (5) then decides alone."""
    eta = 0.1
    a = stability.bounds(eta, rho)["a"]
    assert a * (1 + rho * a) == pytest.approx(2 / eta, rel=1e-12)
    assert dynamics.exact_growth([[[0.999 * a]]], eta, rho) < 0
    assert dynamics.exact_growth([[[1.001 * a]]], eta, rho) > 0


def test_normalized_sam_has_no_linearization_at_a_minimum():
    """Where unnormalized SAM diverges, it oscillates for ever: f = 10 w^2, eta 0.09, rho 0.05.

    w becomes -0.8 w - 0.09 sign(w) there, whose cycle is at 0.45; the other -2.6 w.
    """
    gradient = jax.value_and_grad(lambda w, _: 10 * (w**2).sum())

    def ends(name):
        way = sharpness.PRESETS[name](gradient, 0.05)

        def step(w, _):
            (_, g), _, _ = way.value_and_grad(w, way.init(w), None)
            w = w - 0.09 * g
            return w, jnp.abs(w).max()

        return np.asarray(jax.lax.scan(step, jnp.array([1e-3]), None, 200)[1])

    assert stability.bounds(0.09, 0.05)["a"] < 20  # the curvature
    np.testing.assert_allclose(ends("sam")[-20:], 0.45, rtol=1e-9)
    assert ends("usam")[-1] > 1e50


def test_without_a_radius_the_bounds_are_those_of_sgd():
    limit = stability.bounds(0.1)
    assert limit["a"] == pytest.approx(20)
    assert limit["s2"] == pytest.approx(10)
    assert stability.bounds(0.1, 1e-12)["a"] == pytest.approx(20)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p, d: stability.non_uniformity(losses, p, d, KEY, 1), "k=1: must be at least 2"),
        (lambda p, d: maps.map_moments(losses, p, d, 0.1, 25), "batch_size=25: must be between"),
        (lambda p, d: maps.map_moments(losses, p, d, 0.1, 0), "batch_size=0: must be between"),
        (lambda p, d: maps.map_moments(losses, p, d, 0.1, 9), "at most 20,000 examples together"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(*curved.point())


@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_the_rate_found_from_above_is_that_of_few_parameters(rho):
    """The same problem, beside as many parameters that nothing bends as make it a large one."""
    w, data, h = curved.regression(20, 5)
    few = stability.largest_stable_rate(*maps.map_moments(least_squares, w, data, rho), KEY)
    wide = {"x": jnp.pad(data["x"], ((0, 0), (0, 96))), "y": data["y"]}
    pair = maps.map_moments(least_squares, jnp.ones(101), wide, rho)
    assert stability.largest_stable_rate(*pair, KEY) == pytest.approx(few, rel=1e-3)
    k = h + rho * h @ h
    grown = lambda eta: top((-2 * eta * k + eta**2 * k @ k).mean(0))
    assert grown(few * (1 - 1e-9)) <= 0 < grown(few * (1 + 1e-9))


def test_of_few_parameters_that_only_jump_the_rate_is_nothing():
    """H is 1 or -1: no mean, yet any step makes the square grow."""
    pair = (operators.dense(jnp.diag(jnp.array(d))) for d in ([0.0, 1.0], [1.0, 1.0]))
    assert stability.largest_stable_rate(*pair, KEY) == 0


def test_a_direction_that_bends_little_may_decide_the_stable_rate():
    """At half the rate of the one that bends most, beside many others and many that do not bend."""
    others = jnp.concatenate([jnp.linspace(0.1, 1, 98), jnp.zeros(200)])
    spread = lambda *of: jnp.concatenate([jnp.array(of), others])
    mean, square = (operators.dense(jnp.diag(d)) for d in (spread(1, 2e-3), spread(2, 8e-3)))
    for i in range(4):
        key = jax.random.key(i)
        rate = stability.largest_stable_rate(mean, square, key, tolerance=1e-2)
        assert rate == pytest.approx(0.5, rel=5e-2)
