"""Gains, choices and slopes by hand; any part of a study can be analysed."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from samscale.study import statistics
from samscale.study.analysis import Design, analyse
from simulated import PLAIN, RADII, RHO, flat, growing, only, run, said, simulate, table


def test_a_gain_is_the_mean_difference_within_seeds():
    rows = [run("sgd", s, v) for s, v in enumerate([0.5, 0.7, 0.9])]
    rows += [run("sam", s, v) for s, v in enumerate([0.51, 0.73, 0.92])]
    found = analyse(table(*rows), PLAIN)
    gain = only(found.gains, protocol="validation")
    half = 4.30265273 * 0.01 / np.sqrt(3)  # t with 2 degrees of freedom
    expected = [3, 0.02, 0.01 / np.sqrt(3), 0.02 - half, 0.02 + half]
    np.testing.assert_allclose(gain[7:12], expected, rtol=1e-6)
    np.testing.assert_allclose(found.paired["gain"][:3], [0.01, 0.03, 0.02])


def test_a_slope_is_that_of_the_means_of_sizes_and_per_factor_of_ten():
    """Noise of each size counts by itself: sem^2 = (s_1^2 + s_3^2) / 4n, by Satterthwaite."""
    gains = {0: (0.0, 0.01, 0.02), 1: (0.0, 0.02, 0.04), 2: (0.01, 0.04, 0.07)}
    rows = [run("sgd", s, 0.5, x) for s in gains for x in (10, 100, 1000)]
    rows += [
        run("sam", s, 0.5 + g, x)
        for s in gains
        for x, g in zip((10, 100, 1000), gains[s], strict=True)
    ]
    trend = only(analyse(table(*rows), PLAIN).trends, protocol="validation")
    first, last = (np.var(v, ddof=1) / 3 / 4 for v in ((0, 0, 0.01), (0.02, 0.04, 0.07)))
    sem, freedom = np.sqrt(first + last), 2 * (first + last) ** 2 / (first**2 + last**2)
    half = stats.t.ppf(0.975, freedom) * sem
    np.testing.assert_allclose(
        [trend.slope, trend.low, trend.high], [0.02, 0.02 - half, 0.02 + half]
    )
    assert (trend.n, trend.sizes, trend.tau) == (3, 3, 1.0)
    np.testing.assert_allclose(trend.p, 1 / 3)  # 2 of 6 orders are as extreme


def test_without_log_x_a_slope_is_per_unit():
    rows = [run("sgd", s, 0.5, x) for s in range(3) for x in (1, 2, 4)]
    rows += [run("sam", s, 0.5 + 0.01 * x * (1 + s), x) for s in range(3) for x in (1, 2, 4)]
    trend = only(analyse(table(*rows), Design((), log_x=False)).trends, protocol="validation")
    assert trend.slope == pytest.approx(0.02)
    assert "points per unit" in trend.sentence


def test_the_radius_is_chosen_on_validation_and_beside_it_on_test():
    rows = [run("sgd", s, 0.5) for s in range(3)]
    rows += [run("sam", s, 0.6, rho=0.1, select=0.8) for s in range(3)]
    rows += [run("sam", s, 0.7, rho=0.2, select=0.7) for s in range(3)]
    found = analyse(table(*rows), RHO)
    assert only(found.chosen, method="sam", protocol="validation").rho == 0.1
    assert only(found.chosen, method="sam", protocol="test").rho == 0.2
    assert only(found.gains, protocol="validation").mean == pytest.approx(0.1)
    assert only(found.gains, protocol="test").bias == pytest.approx(0.1)
    assert only(found.gains, protocol="validation").bias == 0  # all seeds choose alike
    assert np.isnan(only(found.gains, protocol="other seeds").bias)
    fixed = found.gains.set_index("protocol")["mean"]
    assert fixed["rho=0.1"] == pytest.approx(0.1)
    assert fixed["rho=0.2"] == pytest.approx(0.2)


def test_losses_are_oriented_so_that_a_gain_is_positive():
    rows = [run("sgd", s, 0.5) for s in range(3)]
    rows += [run("sam", s, 0.3, rho=0.1) for s in range(3)]
    rows += [run("sam", s, 0.4, rho=0.2) for s in range(3)]
    found = analyse(table(*rows), Design(("rho",), metric="loss", maximize=False))
    assert set(found.chosen["rho"].dropna()) == {0.1}
    assert only(found.gains, protocol="validation").mean == pytest.approx(0.2)
    assert "+0.2 in loss over sgd" in found.answer


def test_methods_without_a_nuisance_axis_are_the_same_under_both_protocols():
    found = analyse(simulate(flat, radii=RADII), RHO)
    chosen = found.chosen[found.chosen["method"] == "sgd"].set_index("protocol")
    assert list(chosen.loc["validation", "mean"]) == list(chosen.loc["test", "mean"])


def test_with_several_axes_a_fixed_gain_compares_equal_learning_rates():
    def both(seed, rate):
        sgd = run("sgd", seed, 0.5 + rate, learning_rate=rate)
        return sgd, *(run("sam", seed, 0.6 + rate, rho=r, learning_rate=rate) for r in (0.1, 0.2))

    rows = [row for seed in range(3) for rate in (0.01, 0.1) for row in both(seed, rate)]
    found = analyse(table(*rows), Design(("rho", "learning_rate")))
    fixed = found.gains[found.gains["protocol"].str.contains("=")]
    expected = {f"rho={r:g}, learning_rate={lr:g}" for r in (0.1, 0.2) for lr in (0.01, 0.1)}
    assert set(fixed["protocol"]) == expected
    np.testing.assert_allclose(fixed["mean"], 0.1)
    assert set(found.radius["nuisance"]) == {"rho", "learning_rate"}


def test_gains_are_told_against_every_baseline_at_equal_compute_too():
    values = {"sgd": 0.5, "sgd_2x": 0.55, "sgdx": 0.9, "sam": 0.6}
    found = analyse(table(*(run(m, s, v) for m, v in values.items() for s in range(3))), PLAIN)
    gains = found.gains[found.gains["protocol"] == "validation"]
    means = gains.set_index(["method", "against"])["mean"]
    expected = {("sam", "sgd"): 0.1, ("sam", "sgd_2x"): 0.05}
    expected |= {("sgdx", "sgd"): 0.4, ("sgdx", "sgd_2x"): 0.35}
    assert means.to_dict() == pytest.approx(expected)


def test_the_best_radius_has_a_trend_of_its_own():
    def best_moves(method, k, rho):
        return 0.9 - (0 if method == "sgd" else abs(rho - 0.1 * (1 + k)))

    found = analyse(simulate(best_moves, radii=(0.1, 0.2, 0.3, 0.4, 0.5)), RHO)
    radius = only(found.radius, method="sam")
    assert radius.tau == pytest.approx(1)
    assert radius.p == pytest.approx(2 / 120)
    assert "grows with parameters: 0.1 at the smallest size, 0.5 at the largest" in radius.sentence


def test_failed_and_missing_runs_are_counted_and_left_out():
    cells = simulate(growing).assign(panel="")
    lost = cells.index[cells["method"] == "sam"]
    cells.loc[lost[:3], ["status", "reason", "value"]] = ["failed", "loss is NaN", np.nan]
    cells.loc[lost[3], "value"] = np.inf
    cells.loc[lost[5:7], ["status", "value"]] = ["missing", np.nan]
    found = analyse(cells, PLAIN)
    assert said(found, "4 of 50 runs failed (sam 4)", "sam at [10]: loss is NaN")
    assert said(found, "2 of 50 runs are missing (sam 2)")
    gains = found.gains[found.gains["protocol"] == "validation"]
    assert list(gains["n"]) == [1, 3, 5, 5, 5]
    assert np.isfinite(found.trends["slope"]).all()


def test_a_radius_with_fewer_seeds_than_others_is_no_candidate():
    rows = [run("sgd", s, 0.5) for s in range(3)]
    rows += [run("sam", s, 0.6, rho=0.1) for s in range(3)]
    rows += [run("sam", s, 0.9, rho=0.2) for s in range(2)]
    rows += [run("sam", 2, np.nan, rho=0.2, status="failed", reason="diverged")]
    found = analyse(table(*rows), RHO)
    assert set(found.chosen["rho"].dropna()) == {0.1}
    assert set(found.fixed["rho"].dropna()) == {0.1, 0.2}
    assert said(found, "fewer finished seeds", "could not be chosen")


def test_a_radius_without_validation_in_one_seed_is_not_chosen_on_it():
    rows = [run("sgd", s, 0.5) for s in range(3)]
    rows += [run("sam", s, 0.6, rho=0.1) for s in range(3)]
    rows += [run("sam", s, 0.9, rho=0.2, select=0.9 if s else np.nan) for s in range(3)]
    found = analyse(table(*rows), RHO)
    assert only(found.chosen, method="sam", protocol="validation").rho == 0.1
    assert only(found.chosen, method="sam", protocol="test").rho == 0.2


NOTHING = {
    "no column": pd.DataFrame(),
    "no row": simulate(flat)[:0],
    "all missing": simulate(flat).assign(
        status="missing", value=np.nan, select=np.nan, x=np.nan, seconds=np.nan
    ),
    "all failed": simulate(flat).assign(status="failed", value=np.nan, reason="diverged"),
    "no baseline": simulate(flat)[lambda cells: cells["method"] == "sam"],
    "baseline only": simulate(flat)[lambda cells: cells["method"] == "sgd"],
}


@pytest.mark.parametrize("name", NOTHING)
def test_of_nothing_nothing_is_said(name):
    found = analyse(NOTHING[name], RHO)
    assert found.answer.startswith("Nothing can be said yet")
    assert len(found.gains) == len(found.trends) == 0


def test_one_size_has_gains_but_no_trend():
    found = analyse(simulate(growing, sizes=1, radii=RADII).assign(panel=""), RHO)
    assert "needs two sizes" in found.answer
    assert set(found.trends["verdict"]) == {"no evidence"}
    assert set(found.trends["n"]) == {0}
    assert "needs two sizes" in only(found.radius, method="sam").sentence


@pytest.fixture(scope="module")
def whole_study():
    return analyse(simulate(growing, studies=2, radii=RADII), RHO)


@pytest.mark.parametrize("seed", range(4))
def test_any_part_of_a_study_can_be_analysed(whole_study, seed):
    rng = np.random.default_rng(seed)
    cells = simulate(growing, studies=2, radii=RADII)
    cells["status"] = rng.choice(["done", "missing", "failed"], len(cells), p=[0.3, 0.5, 0.2])
    cells.loc[cells["status"] != "done", ["value", "select"]] = np.nan
    found = analyse(cells, RHO)
    for name in ("chosen", "fixed", "paired", "gains", "trends", "radius"):
        part = getattr(found, name)
        assert list(part.columns) == list(getattr(whole_study, name).columns)
        assert len(part) <= len(getattr(whole_study, name))
    assert not found.gains.duplicated(["panel", "size", "method", "against", "protocol"]).any()


def test_the_order_of_the_runs_plays_no_part():
    cells = simulate(growing, radii=RADII, seed=3)
    shuffled = cells.sample(frac=1, random_state=0)
    results = [analyse(c, RHO) for c in (cells, shuffled)]
    for name in ("chosen", "gains", "trends"):
        one, two = (getattr(found, name) for found in results)
        by = [c for c in ("panel", "x", "method", "against", "protocol") if c in one]
        one, two = (t.sort_values(by, ignore_index=True) for t in (one, two))
        pd.testing.assert_frame_equal(one, two)


def test_the_table_of_runs_is_left_as_it_was():
    cells = simulate(growing, radii=RADII)
    before = cells.copy()
    analyse(cells, RHO)
    pd.testing.assert_frame_equal(cells, before)


def test_a_missing_column_and_a_nonpositive_x_are_refused_by_name():
    cells = simulate(flat)
    with pytest.raises(ValueError, match="select"):
        analyse(cells.drop(columns="select"), RHO)
    with pytest.raises(ValueError, match="x=0: must be greater than 0"):
        analyse(cells.assign(x=0.0), RHO)


def test_equal_scores_choose_the_smallest_radius():
    found = analyse(simulate(flat, radii=(0.2, 0.05, 0.1), noise=0), RHO)
    assert set(found.chosen["rho"].dropna()) == {0.05}


def test_a_size_of_one_seed_has_no_variance_and_is_left_out_of_a_slope():
    position = [0.0, 1.0, 2.0, 0.0, 1.0]
    frame = pd.DataFrame({"seed": [0, 0, 0, 1, 1], "position": position, "x": position})
    frame = frame.assign(group="a", y=[0.0, 1.0, 2.0, 1.0, 4.0])
    row = only(statistics.slopes(frame, ["group"], "y"))
    assert (row.sizes, row.n, row.slope) == (2, 2, pytest.approx(2.0))
    variance = np.array([0.5, 4.5]) / 2
    freedom = variance.sum() ** 2 / (variance**2).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance.sum())
    assert row.high - row.slope == pytest.approx(half)
    alone = only(statistics.slopes(frame[frame["seed"] == 0], ["group"], "y"))
    assert (alone.sizes, alone.slope) == (3, pytest.approx(1.0))
    assert np.isnan(alone.low)


def test_what_choosing_on_test_adds_is_a_sentence():
    rows = [run("sgd", s, 0.5) for s in range(3)]
    rows += [run("sam", s, 0.6, rho=0.1, select=0.8) for s in range(3)]
    rows += [run("sam", s, 0.7, rho=0.2, select=0.7) for s in range(3)]
    (sentence,) = analyse(table(*rows), Design(("rho",))).selection
    assert sentence == (
        "With rho chosen on test, as papers do, the mean gain of sam over sgd would be "
        "+20 points instead of +10 points: selection adds +10 points."
    )
    plain = [run(method, s, 0.5) for s in range(3) for method in ("sgd", "sam")]
    assert analyse(table(*plain), Design(())).selection == []
