"""What is said, and what is warned of."""

import numpy as np
import pytest

from samscale.study.analysis import Design, analyse
from simulated import PLAIN, RADII, RHO, growing, only, said, simulate


def test_a_growing_gain_is_said_to_grow():
    found = analyse(simulate(growing, seeds=10, radii=RADII).assign(panel=""), RHO)
    trend = only(found.trends, protocol="validation")
    assert trend.verdict == "grows"
    assert found.answer.startswith("The gain of sam over sgd grows with parameters: +")
    assert "per factor of ten (95 % interval +" in found.answer
    assert "on 10 seeds." in found.answer
    assert "At the largest size, [2560], it is +" in found.answer


def test_a_shrinking_gain_is_said_to_shrink():
    found = analyse(simulate(lambda m, k, r: -growing(m, k, r)), PLAIN)
    assert set(found.trends["verdict"]) == {"shrinks"}


def test_one_point_is_singular():
    found = analyse(simulate(growing, sizes=2, noise=0).assign(panel=""), PLAIN)
    assert "it is +1 point over sgd" in found.answer


def test_many_panels_are_counted():
    half = simulate(growing, studies=2)
    half.loc[half["panel"] == "study=0", "value"] = 0.5
    answer = analyse(half, PLAIN).answer
    assert "that grow with parameters: 1 of 2 (sam with study=1)" in answer
    assert "without evidence of a change: 1 of 2" in answer


def test_one_seed_has_no_interval_and_is_no_evidence():
    found = analyse(simulate(growing, seeds=1, noise=0).assign(panel=""), PLAIN)
    assert set(found.trends["verdict"]) == {"no evidence"}
    assert found.gains[["sem", "low", "high"]].isna().all(axis=None)
    assert found.trends[["low", "high"]].isna().all(axis=None)
    assert found.answer.startswith("1 seed does not tell whether the gain of sam over sgd changes")
    assert said(found, "fewer than 3 pairs", "one pair gives no interval")


def test_seeds_that_change_nothing_are_no_evidence():
    found = analyse(simulate(growing, noise=0), PLAIN)
    assert found.trends["slope"].gt(0).all()
    assert set(found.trends["verdict"]) == {"no evidence"}


def sinking(method, k, rho):
    return 0.9 + (0 if method == "sam" else -0.02 * k)


def falling_late(method, k, rho):
    return 0.9 + (0 if method == "sam" else [0, 0.05, 0.1, 0.15, 0.08][k])


@pytest.mark.parametrize(
    "truth, words", [(sinking, "per factor of ten"), (falling_late, "since its best")]
)
def test_a_baseline_that_gets_worse_takes_the_merit_from_the_gain(truth, words):
    found = analyse(simulate(truth).assign(panel=""), PLAIN)
    assert said(found, "baseline sgd itself got worse", words, "not SAM's merit")
    assert "while sgd itself got worse" in found.answer


def test_a_loss_that_falls_is_no_baseline_that_gets_worse():
    cells, loss = simulate(sinking), Design((), metric="loss", maximize=False)
    assert not said(analyse(cells, loss), "got worse")
    rising = analyse(cells.assign(value=-cells["value"], panel=""), loss)
    assert said(rising, "got worse as parameters grew (by 0.03", "95 % interval +0.0")


def test_sizes_of_one_x_have_no_trend():
    found = analyse(simulate(growing).assign(x=1e-4), Design((), log_x=False))
    assert set(found.trends["n"]) == {0}


def test_gains_that_rise_and_fall_are_said_to():
    def hill(method, k, rho):
        return 0.5 + [0, 0.1, 0.2, 0.1, 0][k] * (method == "sam")

    def valley(method, k, rho):
        return -hill(method, k, rho)

    assert said(analyse(simulate(hill), PLAIN), "not monotone: it rises by", "= 160, then falls")
    assert said(analyse(simulate(valley), PLAIN), "not monotone: it falls by", "= 160, then rises")
    assert not said(analyse(simulate(growing), PLAIN), "not monotone")


def test_a_winner_at_the_edge_of_its_grid_is_suspect():
    def best_first(method, k, rho):
        return 0.5 if method == "sgd" else 0.9 - rho

    def best_inside(method, k, rho):
        return 0.5 if method == "sgd" else 0.9 - abs(rho - 0.1)

    edge = analyse(simulate(best_first, radii=RADII), RHO)
    inside = analyse(simulate(best_inside, radii=RADII), RHO)
    alone = analyse(simulate(best_inside, radii=RADII[:1]), RHO)
    assert edge.chosen.groupby("method")["edge"].all().to_dict() == {"sam": True, "sgd": False}
    assert said(edge, "best rho of sam is at the edge of its grid at 5 of 5 sizes")
    assert not inside.chosen["edge"].any()
    assert not said(inside, "edge")
    assert not alone.chosen["edge"].any()


def test_without_validation_the_choice_is_called_one_on_test():
    found = analyse(simulate(growing, radii=RADII).assign(select=np.nan, panel=""), RHO)
    assert set(found.gains["protocol"]) == {"test", *(f"rho={r:g}" for r in RADII)}
    assert "(rho chosen on test)" in found.answer
    assert said(found, "No validation metric for sam", "flatters")


def test_without_a_choice_no_validation_is_needed():
    found = analyse(simulate(growing).assign(select=np.nan), PLAIN)
    assert set(found.gains["protocol"]) == {"other seeds", "test", "validation"}
    assert not said(found, "validation")


@pytest.mark.parametrize("seeds, told", [(1, "1 seed does"), (2, "2 seeds do")])
def test_fewer_than_three_seeds_tell_nothing_of_a_trend(seeds, told):
    found = analyse(simulate(growing, seeds=seeds, noise=1e-6).assign(panel=""), PLAIN)
    assert found.answer.startswith(f"{told} not tell whether the gain of sam over sgd changes with")
    assert "grows" not in "".join([found.answer, *found.trends["sentence"]])


def test_panels_of_too_few_seeds_are_counted_apart():
    cells = simulate(growing, studies=3, noise=1e-6)
    few = analyse(cells[(cells["panel"] == "study=0") | (cells["seed"] < 2)], PLAIN).answer
    assert "that grow with parameters: 1 of 3 (sam with study=0)" in few
    assert "With fewer than 3 seeds, which do not tell: 2 of 3 (sam with study=1, sam with" in few
    assert "do not tell" not in analyse(cells, PLAIN).answer
