"""Where the best radius lies at each size, and whether it moves."""

import numpy as np
import pandas as pd
import pytest

from samscale.study import radii, statistics
from samscale.study.analysis import analyse
from simulated import RHO, only, run, simulate, table

GRID = (0.01, 0.02, 0.05, 0.1, 0.2)


def peaked(at):
    """A parabola in log rho around ``at[k]``."""
    return lambda method, k, rho: 0.9 - (method == "sam") * np.log10(rho / at[k]) ** 2


def plateau(method, k, rho):
    """Slightly better up to 0.05, much worse beyond, at every size."""
    log = np.log10(rho / 0.05) if method == "sam" else 0.0
    return 0.9 + 0.05 * min(log, 0.0) - max(log, 0.0) ** 2


def verdicts(truth, *, seeds, noise, studies=150):
    """How often the best radius is said to grow and to shrink; noise falls by size."""
    sizes, rng = len(noise), np.random.default_rng(seeds)
    shape = (studies, sizes, seeds, len(GRID))
    curve = np.array([[truth("sam", k, rho) for rho in GRID] for k in range(sizes)])
    score = curve[:, None] + np.asarray(noise)[:, None, None] * rng.normal(size=shape)
    panel, k, seed, value = (i.ravel() for i in np.indices(shape))
    runs = pd.DataFrame({"panel": panel, "size": k, "x": k, "position": k * 0.6, "seed": seed})
    runs = runs.assign(method="sam", rho=np.asarray(GRID)[value], choice=score.ravel())
    runs = runs.assign(score=runs["choice"])
    chosen = runs.drop_duplicates(statistics.CELL)
    sure = radii.moves(radii.bests(runs, chosen, ["rho"], "rho"))["sure"]
    return (sure > 0).mean(), (sure < 0).mean()


FALLING = (0.2, 0.1, 0.05, 0.025)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("truth", [peaked([0.012] * 4), peaked([0.05] * 4), plateau])
def test_a_best_radius_that_stays_is_seldom_said_to_move(truth, seeds):
    """At most 3 % either way, also where noise falls by size and hides a flat curve."""
    assert max(verdicts(truth, seeds=seeds, noise=FALLING)) < 0.06


@pytest.mark.parametrize("seeds", [5, 10])
def test_a_flat_curve_that_falling_noise_uncovers_is_no_move(seeds):
    """The seeds' own bests alone would be said to grow in 10 to 25 %."""
    noise = np.asarray(FALLING) / 4
    assert max(verdicts(plateau, seeds=seeds, noise=noise, studies=400)) < 0.05


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_best_radius_that_moves_is_said_to_with_three_and_four_sizes(seeds):
    """Which no order of four sizes can show: Kendall's p of a perfect one is 0.083."""
    for at in ((0.01, 0.05, 0.2), (0.02, 0.05, 0.1, 0.2)):
        noise = FALLING[: len(at)]
        assert verdicts(peaked(at), seeds=seeds, noise=noise)[0] > 0.8
        assert verdicts(peaked(at[::-1]), seeds=seeds, noise=noise)[1] > 0.8


def test_seeds_that_agree_know_the_best_to_half_a_step_of_the_grid():
    """Three sizes, every seed alike: the interval of the slope is that of the grid."""
    rows = [run("sam", s, 0.9 - abs(rho - at), x, rho=rho) for at, x in ((0.1, 10), (0.1, 100))
            for s in range(3) for rho in (0.01, 0.1, 1.0)]  # fmt: skip
    runs = table(*rows).assign(position=lambda t: np.log10(t["x"]), choice=lambda t: t["select"])
    runs = runs.assign(score=runs["value"])
    found = radii.bests(runs, runs.drop_duplicates("x"), ["rho"], "rho")
    assert set(found["value"]) == {0.1}
    np.testing.assert_allclose(found["covariance"], 1 / 12)
    slope = only(statistics.slopes(found, ["panel", "method"], "best"))
    assert slope.sem == pytest.approx(np.sqrt(2 / 12))


def test_the_vertex_is_that_of_the_mean_parabola_and_seeds_spread_around_it():
    rng, at = np.random.default_rng(0), np.log10(GRID)
    curves = np.array([-((at + 1.3) ** 2) + 0.01 * rng.normal(size=5) for _ in range(2000)])
    vertex = radii._vertices(curves, at)
    assert vertex.mean() == pytest.approx(-1.3, abs=0.002)
    each = np.array([np.polyfit(at, curve, 2) for curve in curves])
    assert vertex.std() == pytest.approx((-each[:, 1] / each[:, 0] / 2).std(), rel=0.1)
    assert np.isnan(radii._vertices(-curves, at)).all()
    assert np.isnan(radii._vertices(curves[:1], at)).all()


def sentence(truth, **more):
    cells = simulate(truth, radii=GRID, noise=1e-3, **more).assign(panel="")
    return only(analyse(cells, RHO).radius, method="sam")


def test_what_is_said_of_the_best_radius():
    grows = sentence(peaked([0.01, 0.02, 0.05, 0.1, 0.2]))
    assert grows.verdict == "grows"
    assert grows.sentence.startswith(
        "The best rho of sam grows with parameters: 0.01 at the smallest size, 0.2 at the largest "
        "(times 3.5 per factor of ten, 95 % interval 2."
    )
    assert grows.sentence.endswith(
        "on 5 seeds); at 2 of 5 sizes it is at the edge of its grid, and the true one may lie "
        "beyond."
    )
    shrinks = sentence(peaked([0.2, 0.1, 0.05, 0.02]), sizes=4)
    assert "shrinks with parameters" in shrinks.sentence
    two = sentence(peaked([0.02, 0.1]), sizes=2)
    assert two.verdict == "no evidence"
    assert two.sentence == (
        "Too few sizes to tell whether the best rho of sam changes with parameters, a trend needs "
        "3: 0.02 at the smallest size, 0.1 at the largest."
    )
    few = sentence(peaked([0.02, 0.05, 0.1]), sizes=3, seeds=2)
    assert few.sentence.startswith("2 seeds do not tell whether the best rho of sam changes with")


def test_the_interval_of_the_best_radius_lies_within_the_grid():
    found = analyse(simulate(peaked([0.2] * 5), radii=GRID, noise=0.1).assign(panel=""), RHO)
    bests = found.bests
    assert set(bests["value"]) <= set(GRID)
    assert (bests["low"] < bests["high"]).all()
    assert (bests[["low", "high"]] <= 0.2 + 1e-12).all(axis=None)
    assert (bests[["low", "high"]] >= 0.01 - 1e-12).all(axis=None)
