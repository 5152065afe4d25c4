"""Choices on other seeds: what they are, that they do not flatter, and the price of their interval.

Simulated studies of one size: K values of a nuisance without effect or with one, test = validation
luck + its own, and a baseline. ``share``: of a run's variance, what test and validation share.
"""

import numpy as np
import pandas as pd
import pytest

from samscale.study import choices, statistics
from samscale.study.analysis import analyse
from simulated import RHO, only, run, said, simulate, table


def test_each_seed_runs_at_what_the_others_choose():
    """Seed 0 alone likes 0.2: the others give it 0.1, and it gives neither of them 0.2."""
    select = {0.1: (0.5, 0.7, 0.7), 0.2: (0.8, 0.6, 0.6)}
    rows = [run("sgd", s, 0.5) for s in range(3)]
    for rho, values in select.items():
        rows += [run("sam", s, 0.6 + rho, rho=rho, select=v) for s, v in enumerate(values)]
    found = analyse(table(*rows), RHO)
    gains = found.paired[found.paired["protocol"] == "other seeds"].set_index("seed")["gain"]
    assert gains.to_dict() == pytest.approx({0: 0.2, 1: 0.3, 2: 0.3})
    assert only(found.chosen, method="sam", protocol="other seeds").rho == 0.2  # all together
    assert only(found.chosen, method="sam", protocol="other seeds").mean == pytest.approx(2.3 / 3)


def test_no_seed_has_a_say_in_its_own_choice():
    cells = simulate(lambda m, k, r: 0.9, sizes=1, radii=(0.1, 0.2, 0.4), seed=4)
    own = lambda cells: picks(cells).set_index("seed")["rho"]
    for seed in range(5):
        for rho in (0.1, 0.2, 0.4):
            changed = cells.copy()
            changed.loc[(cells["seed"] == seed) & (cells["rho"] == rho), "select"] += 1.0
            assert own(changed)[seed] == own(cells)[seed]
            assert (own(changed).drop(seed) == rho).all()


def picks(cells):
    """The runs of sam, each at the value of the other seeds."""
    runs = cells[cells["method"] == "sam"].assign(panel="")
    runs = runs.assign(score=runs["value"], choice=runs["select"], position=1.0)
    return choices.other_seeds(runs, choices.every_value(runs, ["rho"]), ["rho"])


def test_a_lone_seed_chooses_for_itself_which_is_said():
    rows = [run("sgd", 0, 0.5), run("sam", 0, 0.6, rho=0.1, select=0.7)]
    found = analyse(table(*rows, run("sam", 0, 0.9, rho=0.2, select=0.6)), RHO)
    assert only(found.gains, protocol="other seeds").mean == pytest.approx(0.1)
    assert said(found, "single seed of sam chose its rho on its own validation", "luck")
    both = simulate(lambda m, k, r: 0.9, seeds=2, radii=(0.1, 0.2))
    assert not said(analyse(both, RHO), "single seed")


def test_equal_votes_go_to_the_smallest_value_whatever_the_order_of_the_sum():
    """Seeds 1 to 3 give both values the same votes, whose sums differ by rounding."""
    votes = {0.1: (0.0, 0.3, 0.2, 0.1), 0.2: (0.0, 0.1, 0.2, 0.3)}
    assert sum(votes[0.2]) > sum(votes[0.1])
    rows = [run("sam", s, 0.5, rho=r, select=v) for r in votes for s, v in enumerate(votes[r])]
    assert picks(table(*rows)).set_index("seed")["rho"][0] == 0.1


def test_a_run_that_collapses_on_test_is_no_luck_of_the_others():
    rng = np.random.default_rng(0)
    choice = rng.normal(size=40)
    score, row = choice + rng.normal(size=40), np.arange(40).reshape(10, 4)
    ordinary = choices._covariance(row, choice, score)
    score[choice.argmin()] -= 1000
    assert 0 < choices._covariance(row, choice, score) < 3 * ordinary


def test_who_had_more_tries_is_said():
    found = analyse(simulate(lambda m, k, r: 0.9, radii=(0.1, 0.2, 0.4)), RHO)
    assert said(found, "unequal numbers of tries", "rho to choose among: sam 3, sgd 1.")
    assert not said(analyse(simulate(lambda m, k, r: 0.9, radii=(0.1,)), RHO), "tries")


def test_the_protocol_that_is_quoted_is_the_first_of_those_there_are():
    rows = [("a", "other seeds"), ("a", "test"), ("a", "validation"), ("b", "test")]
    rows += [("b", "validation"), ("c", "rho=0.1"), ("c", "test")]
    frame = pd.DataFrame(rows, columns=["method", "protocol"]).assign(panel="")
    quoted = statistics.headline(frame).set_index("method")["protocol"]
    assert quoted.to_dict() == {"a": "other seeds", "b": "validation", "c": "test"}
    assert len(statistics.headline(frame[:0])) == 0


def test_luck_of_two_seeds_with_two_values():
    r"""Each takes the other's larger: both larger or both smaller, $E[\max]^2 = 1 / \pi$."""
    assert choices._simulated_overlap(2, 2) == pytest.approx(1 / np.pi, abs=0.01)
    assert choices.overlap(1, 9) == choices.overlap(9, 1) == 0


def draws(seeds, values, share, *, effect=0.0, spread=1.0, baseline=1.0, studies=1200):
    """Runs of a method and gains over a baseline, whose expectations differ by ``effect``."""
    rng = np.random.default_rng(seeds * values)
    shape = (studies, seeds, values)
    luck, test, own = rng.normal(size=(3, *shape)) * np.geomspace(1, spread, values)
    truth = effect * np.linspace(0, 1, values)
    base = baseline * rng.normal(size=(studies, seeds, 1))
    frame = {"choice": truth + np.sqrt(share) * luck + np.sqrt(1 - share) * own}
    frame["value"] = truth + np.sqrt(share) * luck + np.sqrt(1 - share) * test - base
    panel, seed, value = (i.ravel() for i in np.indices(shape))
    frame = {name: column.ravel() for name, column in frame.items()}
    frame |= {"panel": panel, "seed": seed, "rho": value, "truth": truth[value]}
    frame = pd.DataFrame(frame).assign(size="a", x=1.0, method="sam", seconds=1.0, gradients=1.0)
    return frame.assign(select=frame["choice"], score=frame["value"])


def errors(runs):
    """Of 95 % intervals: how often they miss the mean truth of what was chosen; and the bias."""
    picked = choices.other_seeds(runs, choices.every_value(runs, ["rho"]), ["rho"])
    found = statistics.interval(picked, ["panel"], "score")
    truth = picked.groupby("panel", sort=False)["truth"].mean().to_numpy()
    missed = (found["low"] > truth) | (found["high"] < truth)
    return missed.mean(), (found["mean"] - truth).mean(), found


STUDIES = [
    (3, 5, 0.0, {}),
    (3, 11, 0.6, {"baseline": 0.1}),
    (5, 8, 0.3, {}),
    (5, 11, 0.6, {"baseline": 0.1}),
    (5, 5, 0.6, {"effect": 1.0}),
    (5, 8, 0.6, {"spread": 4.0}),
    (10, 5, 0.0, {}),
    (10, 11, 0.6, {"baseline": 0.1}),
    (10, 8, 0.6, {"effect": 0.5, "baseline": 0.3}),
]


@pytest.mark.parametrize("seeds, values, share, more", STUDIES)
def test_the_interval_holds_its_level_at_any_share_of_common_luck(seeds, values, share, more):
    """Two-sided errors of 2 to 5 %; without the covariance of choices, of 5 to 11 %."""
    runs = draws(seeds, values, share, **more)
    missed, bias, found = errors(runs)
    assert missed < 0.068  # three standard errors above 5 %
    assert abs(bias) < 4 * found["mean"].std() / np.sqrt(len(found))


def test_without_the_covariance_the_interval_would_be_too_narrow():
    runs = draws(10, 11, 0.6, baseline=0.1)
    picked = choices.other_seeds(runs, choices.every_value(runs, ["rho"]), ["rho"])
    plain = statistics.interval(picked.assign(covariance=0.0), ["panel"], "score")
    assert ((plain["low"] > 0) | (plain["high"] < 0)).mean() > 0.08
    spread = plain["mean"].var()
    assert picked["covariance"].mean() + (plain["sem"] ** 2).mean() == pytest.approx(
        spread, rel=0.1
    )


def test_the_interval_is_seldom_wider_than_luck_demands():
    """A gain of two standard deviations is seen in 88 % of studies of five seeds."""
    runs = draws(5, 8, 0.3, baseline=0.3)
    _, _, found = errors(runs.assign(value=runs["value"] + 2.0, score=runs["score"] + 2.0))
    assert (found["low"] > 0).mean() > 0.84


def test_pooled_validation_flatters_by_common_luck_and_says_by_how_much():
    """Eight radii without effect, half of the noise common: +0.36 points by one choice for all."""
    radii = tuple(np.geomspace(0.01, 1, 8))
    cells = simulate(lambda m, k, r: 0.9, studies=200, sizes=2, radii=radii, seed=2, shared=0.5)
    means = analyse(cells, RHO).gains.groupby("protocol")[["mean", "bias"]].mean()
    assert abs(means.loc["other seeds", "mean"]) < 0.001
    assert 0.002 < means.loc["validation", "bias"] < means.loc["test", "bias"]
