"""Power: what is told with 80 % probability by the formulas is told so often in simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import DESIGN, simulated
from samscale.study import power
from samscale.study.analysis import analyse


@pytest.mark.parametrize("freedom", [2.0, 4.5, 30.0])
def test_power_is_that_of_the_noncentral_t_distribution(freedom):
    t = stats.t.ppf(0.975, freedom)
    for ratio in (0.0, 1.0, 3.5):
        wanted = stats.nct.sf(t, freedom, ratio) + stats.nct.cdf(-t, freedom, ratio)
        assert power.power(2 * ratio, 2.0, freedom) == pytest.approx(wanted, abs=1e-9)
    assert power.power(0.0, 1.0, freedom) == pytest.approx(0.05)
    least = power.detectable(0.3, freedom)
    assert power.power(least, 0.3, freedom) == pytest.approx(0.8, abs=1e-4)
    assert power.power(-least, 0.3, freedom) == power.power(least, 0.3, freedom)


def test_as_many_seeds_as_are_named_tell_the_effect_in_a_simulation():
    rng, spread, gain = np.random.default_rng(0), 1.0, 0.8
    needed = int(power.seeds(gain, spread / np.sqrt(5), 4, 5))
    share = {}
    for n in (needed, needed // 2):
        gains = rng.normal(gain, spread, (4000, n))
        half = stats.t.ppf(0.975, n - 1) * gains.std(1, ddof=1) / np.sqrt(n)
        share[n] = float((gains.mean(1) > half).mean())
    assert abs(share[needed] - 0.8) < 0.04  # a whole number of seeds may give a little more
    assert share[needed // 2] < 0.6


def test_what_has_no_spread_or_no_effect_needs_no_number_that_could_be_believed():
    assert np.isnan(power.seeds(1.0, 0.0, 4, 5))
    assert np.isnan(power.seeds(1.0, 1.0, 0, 1))
    assert np.isnan(power.seeds(np.nan, 1.0, 4, 5))
    assert power.seeds(0.0, 1.0, 4, 5) == np.inf


def test_the_analysis_names_what_its_seeds_can_tell():
    cells, _ = simulated(widths=(10, 100, 1000), rhos=(0.05, 0.1), seeds=5)
    found = analyse(cells, DESIGN)
    table = found.power
    assert set(table["size"] == "") == {True, False}  # gains at the largest size, and slopes
    for row in table.itertuples():
        assert row.detectable == pytest.approx(power.detectable(row.sem, row.freedom))
        enough = abs(row.effect) >= row.detectable
        assert enough == (row.needed <= row.n)
    assert any("with 80 % power" in note for note in found.notes)
    asked = list(power.sentences_of(table, 0.01, 60.0, DESIGN))
    assert len(asked) == (table["size"] != "").sum()
    assert all("would tell a gain of 1 point" in words for words in asked)


def test_a_study_without_pairs_says_nothing_of_power():
    cells, _ = simulated(widths=(10, 100), rhos=(0.05,), seeds=1)
    found = analyse(cells, DESIGN)
    assert not any("power" in note for note in found.notes)
    assert list(power.sentences_of(found.power, 0.01, 1.0, DESIGN)) == []
    nothing = analyse(pd.DataFrame(), DESIGN).power
    assert list(nothing.columns) == power.COLUMNS
