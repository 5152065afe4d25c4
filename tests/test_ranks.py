"""The rank-based interval, runs that a mean should not be trusted with, and the paper's numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import DESIGN, INFO, built, simulated
from samscale.config import Config
from samscale.study import agreement, published, ranks, statistics
from samscale.study.analysis import Design, analyse
from samscale.study.report import frames
from samscale.tasks import build
from samscale.training.summary import chance
from simulated import PLAIN, RHO, only, run, said, simulate, table


def of(*values):
    frame = pd.DataFrame({"g": "a", "v": values})
    return only(ranks.hodges_lehmann(frame, ["g"], "v"))


def test_the_middle_of_all_means_of_two():
    """Of 0, 1, 5: 0, 0.5, 1, 2.5, 3, 5."""
    found = of(0.0, 1.0, 5.0)
    assert (found.middle, found.rank_low, found.rank_high) == (1.75, 0, 5)
    assert found.rank_level == 0.75  # 1 - 2 / 8


@pytest.mark.parametrize(
    "n, k, level", [(2, 0, 0.5), (5, 0, 0.9375), (6, 0, 0.96875), (8, 3, 1 - 10 / 256)]
)
def test_the_confidence_is_that_of_the_signed_rank_table(n, k, level):
    values = np.random.default_rng(n).normal(size=n)
    walsh = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    found = of(*values)
    assert (found.rank_low, found.rank_high) == (walsh[k], walsh[-1 - k])
    assert found.rank_level == pytest.approx(level)


def test_one_number_has_a_middle_and_no_interval():
    found = of(3.0)
    assert found.middle == 3
    assert np.isnan([found.rank_low, found.rank_high, found.rank_level]).all()


def test_the_interval_agrees_with_the_test_it_is_made_of():
    for seed in range(20):
        values = np.random.default_rng(seed).normal(0.6, 1, size=9)
        p = stats.wilcoxon(values, method="exact").pvalue
        assert (of(*values).rank_low > 0 or of(*values).rank_high < 0) == (p < 0.05)


def collapsed():
    rows = [run("sgd", s, 0.95 + 0.002 * s, x) for x in (10, 100) for s in range(5)]
    rows += [run("sam", s, 0.955 + 0.002 * s, x) for x in (10, 100) for s in range(5)]
    rows[3]["value"] = 0.38
    return table(*rows)


def test_a_collapsed_run_is_named_and_moves_the_middle_little():
    found = analyse(collapsed(), PLAIN)
    (text,) = said(found, "far from the other seeds")
    assert text.startswith("1 run lies far from the other seeds, 1 of them behind the gains")
    assert "sgd at [10], seed 3: 38 %, where the median of its seeds is 95.2 %" in text
    gain = only(found.gains, protocol="other seeds", size="[10]")
    assert gain.mean > 0.1
    assert gain.middle < 0.02 or gain.rank_low < 0.01


def test_a_seed_four_points_below_is_named_whatever_the_grid_beside_it():
    """The demo's smallest network: that run moves the mean gain from +0.07 to +0.95."""
    values = {"sgd": (0.9638, 0.9666, 0.9666, 0.9638, 0.922)}
    values[0.02] = (0.9638, 0.9777, 0.9638, 0.9582, 0.9666)
    values[0.05] = (0.9638, 0.9638, 0.9666, 0.9582, 0.9304)
    values[0.1] = (0.9666, 0.9582, 0.9610, 0.9526, 0.9471)
    values[0.2] = (0.9471, 0.9610, 0.9582, 0.9471, 0.3816)
    rows = [
        run("sgd" if rho == "sgd" else "sam", s, v, rho=np.nan if rho == "sgd" else rho)
        for rho, of in values.items()
        for s, v in enumerate(of)
    ]
    found = analyse(table(*rows), RHO)
    (text,) = said(found, "far from the other seeds")
    assert "(sgd at [10], seed 4: 92.2 %" in text
    assert "sam rho 0.2 at [10], seed 4: 38.16 %" in text
    gain = only(found.gains, protocol="other seeds")
    assert gain.high - gain.mean < 0.03  # what collapsed at 0.2 is no luck of those at 0.02
    assert gain.middle < 0.008 < gain.mean


def test_two_collapsed_runs_of_ten_do_not_hide_each_other():
    cells = simulate(lambda m, k, r: 0.9, seeds=10, sizes=2, noise=0.002).assign(panel="")
    lost = cells.index[cells["method"] == "sam"][:2]
    cells.loc[lost, "value"] = [0.5, 0.6]
    assert "2 runs lie far" in said(analyse(cells, PLAIN), "far from")[0]


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_ordinary_runs_are_seldom_suspected(seeds):
    cells = simulate(lambda m, k, r: 0.9, studies=60, seeds=seeds, radii=(0.1, 0.2, 0.4))
    found = analyse(cells.assign(size=cells["panel"] + cells["size"], panel=""), RHO)
    lines = said(found, "far from the other seeds")
    count = int(lines[0].split()[0]) if lines else 0
    assert count < 0.004 * 60 * 5 * 4  # of all groups of seeds


def test_seeds_that_differ_by_one_example_are_no_outliers():
    rows = [run(m, s, 0.9 + (s == 0) / 1000) for m in ("sgd", "sam") for s in range(6)]
    assert not said(analyse(table(*rows), PLAIN), "far from")


def test_a_baseline_at_chance_has_not_learned():
    rows = [run("sgd", s, 0.1 + 0.001 * s, chance=0.1) for s in range(3)]
    rows += [run("sam", s, 0.5, chance=0.1) for s in range(3)]
    found = analyse(table(*rows), PLAIN)
    assert said(found, "Sgd has not learned at 1 size ([10]): 10.1 %", "prediction has 10 %")
    assert not said(found, "Sam has not")
    loss = Design((), metric="loss", maximize=False)
    rows = [run("sgd", s, 0.9974, chance=0.9973) for s in range(3)]
    rows += [run("sam", s, 0.9778, chance=0.9973) for s in range(3)]
    found = analyse(table(*rows), loss)
    assert said(found, "Sgd has not learned", "0.9974, where a constant prediction has 0.9973")
    assert len(said(found, "has not learned")) == 1


def test_chance_is_what_the_best_constant_scores():
    config = Config(dataset="digits")
    task = build(config)
    share = np.bincount(task.test["y"]) / len(task.test["y"])
    found = chance(config, task)
    assert found["chance_accuracy"] == pytest.approx(share.max())
    assert found["chance_loss"] == pytest.approx(stats.entropy(share))
    numbers = Config(dataset="teacher_student", loss="squared")
    y = build(numbers).test["y"]
    assert chance(numbers, build(numbers)) == {"chance_loss": pytest.approx(y.var(), rel=1e-5)}


PAPER = published((10, 40, 160), gain=((0.0, 0.01, 0.02), (0.001, 0.001, 0.001)), source="A")


def test_the_papers_bars_are_students_of_its_runs():
    cells, _ = simulated()
    for n, factor in ((None, 4.30265), (5, 2.77645)):
        paper = {**INFO["paper"], **({"n": n} if n else {})}
        study = frames.Study(cells, analyse(cells, DESIGN), DESIGN, {**INFO, "paper": paper})
        rows = frames.gain(study)
        rows = rows[rows["part"] == "paper"]
        np.testing.assert_allclose(rows["high"] - rows["value"], 0.1 * factor, rtol=1e-5)
        np.testing.assert_allclose(rows["value"] - rows["low"], 0.1 * factor, rtol=1e-5)


def compared(paper, **more):
    def growing(method, k, rho):
        return 0.8 + 0.01 * k * (method == "sam")

    cells = simulate(growing, sizes=3, **more).assign(panel="")
    return analyse(cells, Design((), paper=paper))


def test_agreement_with_the_paper_is_a_difference_with_both_errors():
    found = compared(PAPER, seeds=5, noise=0.005)
    rows = found.agreement[found.agreement["protocol"] == "other seeds"].set_index("size")
    gains = statistics.headline(found.gains).set_index("size")
    point = rows.loc["[40]"]
    assert point["difference"] == pytest.approx(gains.loc["[40]", "mean"] - 0.01)
    sem = np.hypot(gains.loc["[40]", "sem"], 0.001)
    freedom = sem**4 / (gains.loc["[40]", "sem"] ** 4 / 4 + 0.001**4 / 2)
    assert point["sem"] == pytest.approx(sem)
    half = stats.t.ppf(0.975, freedom) * sem
    assert point["high"] - point["difference"] == pytest.approx(half)
    slope, trend = rows.loc["slope"], only(found.trends, protocol="other seeds")
    assert slope["ours"] == pytest.approx(trend.slope)
    assert slope["ours_sem"] == pytest.approx(trend.sem)
    assert slope["paper"] == pytest.approx(0.01 / np.log10(4))
    assert slope["paper_sem"] == pytest.approx(0.001 / np.sqrt(2) / np.log10(4))
    assert any("differs from the paper's at 0 of 3 sizes; its slope is" in n for n in found.notes)


def test_differences_from_the_paper_are_covered():
    """Both sides of noise, 3 runs there and 5 here: 94.7 % of points, 96.3 % of slopes."""
    rng, sizes, papers = np.random.default_rng(0), (10.0, 40.0, 160.0), {}
    panel, size, seed = (i.ravel() for i in np.indices((300, 3, 5)))
    ours = pd.DataFrame({"panel": panel.astype(str), "x": np.array(sizes)[size], "seed": seed})
    ours = ours.assign(size=size, gain=0.01 * size + 0.005 * rng.normal(size=len(size)))
    ours = ours.assign(method="sam", against="sgd", protocol="other seeds")
    for name in dict.fromkeys(ours["panel"]):
        theirs = 0.01 * np.arange(3) + 0.01 * rng.normal(size=(3, 3))
        sem = theirs.std(0, ddof=1) / np.sqrt(3)
        papers[name] = published(sizes, gain=(tuple(theirs.mean(0)), tuple(sem)))
    by = ["panel", "size", "x", "method", "against", "protocol"]
    gains = statistics.interval(ours, by, "gain")
    rows = agreement.compare(gains, gains[:0], papers, PLAIN)
    assert len(rows) == 300 * 4
    covered = (rows["low"] < 0) & (rows["high"] > 0)
    assert covered[rows["size"] != "slope"].mean() == pytest.approx(0.95, abs=0.025)
    assert covered[rows["size"] == "slope"].mean() == pytest.approx(0.96, abs=0.035)


def test_a_paper_without_errors_or_with_other_sizes_is_still_compared_where_it_can_be():
    found = compared(published((10, 40, 77), gain=(0.5, 0.5, 0.5), sam=(0.8, 0.8, 0.8)))
    rows = found.agreement
    assert set(rows["size"]) == {"[10]", "[40]", "slope"}
    assert set(rows["series"]) == {"gain", "sam"}
    assert rows["paper_sem"].isna().all()
    assert np.isfinite(rows["high"]).all()
    assert any("at 2 of 2 sizes (the paper prints no errors)" in note for note in found.notes)
    assert compared({}).agreement.empty
    assert list(compared({}).agreement) == agreement.COLUMNS


def test_agreement_and_corrected_p_stand_on_the_page(tmp_path):
    cells, curves = simulated(widths=(10, 100, 1000))
    paper = published((500, 5000, 50_000), gain=((0.01, 0.02, 0.03), (0.001,) * 3))
    design = DESIGN._replace(paper=paper)
    page = built(tmp_path, cells, curves, design, {**INFO, "paper": paper})
    assert "Agreement with the paper, in points; slopes per factor of ten" in page
    assert "<th>p, Holm of 6</th>" in page
    assert "chosen on test, differs from the paper&#x27;s at " in page
    assert "their bars 95 % intervals" in page


def test_intervals_of_flatness_and_of_radii_are_drawn_as_students():
    cells, _ = simulated(seeds=3)
    cells["flatness_trace"] = np.arange(len(cells)) % 3 + (cells["method"] == "sam")
    study = frames.Study(cells, analyse(cells, DESIGN), DESIGN, INFO)
    rows = frames.flatness(study)
    means = rows[rows["part"] == "mean"]
    np.testing.assert_allclose(means["high"] - means["value"], 4.30265 / np.sqrt(3), rtol=1e-5)
    np.testing.assert_allclose(means["value"] - means["low"], 4.30265 / np.sqrt(3), rtol=1e-5)
    rows = frames.radius(study)
    assert set(rows["part"]) == {"mean", "seed"}
    means = rows[rows["part"] == "mean"]
    assert (means["low"] <= means["value"]).all()
    assert (means["value"] <= means["high"]).all()
