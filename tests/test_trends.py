"""Slopes over sizes whose noise differs, and seeds that sizes have in common."""

import numpy as np
import pandas as pd
import pytest

from samscale.study import statistics
from samscale.study.analysis import analyse
from simulated import PLAIN, growing, only, said, simulate

STUDIES = 3000
FALLING = (4.0, 2.0, 1.0, 0.5)


def tables(seeds, noise, *, common=0.0, scaled=False, slope=0.0):
    """Gains of many groups; ``common``: the correlation of a seed's luck at different sizes."""
    rng, noise = np.random.default_rng(len(noise) * seeds), np.asarray(noise)
    shape = (STUDIES, seeds, len(noise))
    luck = rng.normal(size=(STUDIES, seeds, 1)) * (noise if scaled else noise.mean())
    gain = np.sqrt(common) * luck + np.sqrt(1 - common) * noise * rng.normal(size=shape)
    group, seed, x = (i.ravel() for i in np.indices(shape))
    frame = {"group": group, "seed": seed, "x": x, "position": x.astype(float)}
    return pd.DataFrame(frame | {"gain": gain.ravel() + slope * x})


def verdicts(found):
    sure = statistics.excludes_zero(found["low"], found["high"])
    return (sure > 0).mean(), (sure < 0).mean()


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    "noise, common",
    [
        ((1.0, 1.0, 1.0), {}),
        (FALLING, {}),
        (FALLING, {"common": 0.5}),
        (FALLING, {"common": 0.5, "scaled": True}),
        (tuple(np.geomspace(4, 0.5, 10)), {"common": 0.5, "scaled": True}),
    ],
)
def test_flat_gains_seldom_grow_or_shrink_whatever_their_noise(seeds, noise, common):
    """At most 3.7 % on either side; for ten sizes with a common seed 6 % but for r."""
    found = statistics.slopes(tables(seeds, noise, **common), ["group"], "gain")
    assert max(verdicts(found)) < 0.042


def test_pooling_within_sizes_sees_slopes_that_seeds_alone_do_not():
    """Three seeds, four sizes: 55 % of such slopes are seen, 37 % by a slope of each seed."""
    table = tables(3, (1.0, 1.0, 1.0, 1.0), slope=0.75)
    grows, _ = verdicts(statistics.slopes(table, ["group"], "gain"))
    x = table["position"] - 1.5
    table = table.assign(own=x * table["gain"] / 5)
    own = table.groupby(["group", "seed"])["own"].sum().reset_index()
    alone, _ = verdicts(statistics.interval(own, ["group"], "own"))
    assert grows > alone + 0.14


def test_the_same_correlation_is_seen_in_seeds_that_lack_a_size():
    table = tables(5, np.geomspace(4, 0.5, 10), common=0.5, scaled=True)
    table = table[(table["seed"] > 1) | (table["x"] < 7)]
    assert max(verdicts(statistics.slopes(table, ["group"], "gain"))) < 0.045


def test_two_sizes_are_a_difference_and_no_trend():
    found = analyse(simulate(growing, sizes=2, noise=1e-4).assign(panel=""), PLAIN)
    trend = only(found.trends, protocol="other seeds")
    assert trend.verdict == "no evidence"
    assert np.isnan(trend.tau)
    assert found.answer.startswith(
        "Two sizes do not show a trend: the gain of sam over sgd is +1 point more at the larger ("
    )
    assert "tau" not in trend.sentence
    assert "grow" not in trend.sentence
    three = analyse(simulate(growing, sizes=3, noise=1e-4).assign(panel=""), PLAIN)
    assert only(three.trends, protocol="other seeds").verdict == "grows"


def test_two_sizes_are_counted_apart_where_there_are_many_trends():
    cells = simulate(growing, studies=3, noise=1e-4)
    cells = cells[(cells["panel"] == "study=0") | (cells["x"] < 100)]
    answer = analyse(cells, PLAIN).answer
    assert "that grow with parameters: 1 of 3 (sam with study=0)" in answer
    assert "fewer than 3 sizes, which do not tell: 2 of 3 (sam with study=1, sam with" in answer


def test_a_baseline_that_is_worse_at_the_second_of_two_sizes_is_still_warned_of():
    def sinking(method, k, rho):
        return 0.9 - 0.05 * k * (method == "sgd")

    assert said(analyse(simulate(sinking, sizes=2), PLAIN), "got worse", "since its best")


def test_holm_multiplies_by_how_many_are_left():
    np.testing.assert_allclose(
        statistics.holm([0.01, np.nan, 0.04, 0.03]), [0.03, np.nan, 0.06, 0.06]
    )
    assert np.isnan(statistics.holm([np.nan])).all()


def test_many_gains_without_effect_are_seldom_sure_after_holm():
    """Of 12 gains that are 0, some interval leaves out 0 in 46 % of the studies."""
    gains = np.random.default_rng(0).normal(size=(600, 12, 5))
    sem = gains.std(-1, ddof=1) / np.sqrt(5)
    p = statistics.p_value(gains.mean(-1), sem, np.full(sem.shape, 4))
    assert (p < 0.05).any(1).mean() > 0.35
    assert np.mean([(statistics.holm(row) < 0.05).any() for row in p]) < 0.08


def test_how_many_gains_were_looked_at_is_said():
    def at_the_largest(method, k, rho):
        return 0.9 + 0.1 * (method == "sam" and k == 2)

    found = analyse(simulate(at_the_largest, sizes=3, seed=1).assign(panel=""), PLAIN)
    (note,) = [note for note in found.notes if note.startswith("Of ")]
    assert note == (
        "Of 3 gains, the intervals of 1 leave out 0; after Holm's correction for 3, 1 "
        "(sam over sgd at [160])."
    )


def test_an_interval_that_leaves_out_zero_has_a_p_below_5_percent():
    gains = analyse(simulate(growing, studies=20), PLAIN).gains
    quoted = statistics.headline(gains)
    sure = statistics.excludes_zero(quoted["low"], quoted["high"]) != 0
    assert ((quoted["p"] < 0.05) == sure).all()
    assert 0 < sure.sum() < len(sure)
    assert gains.loc[~gains.index.isin(quoted.index), ["p", "p_holm"]].isna().all(axis=None)
