"""Whether flatness predicts the metric, on tables whose truth is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from samscale.study import correlation
from samscale.study.correlation import BETWEEN, INSIDE, KINDS, OVER, WITHIN, flatness_correlation

METHODS = ("sgd", "sgd_2x", "sam", "usam", "asam", "gsam", "wsam")


def table(seed=0, methods=METHODS, sizes=5, seeds=5, **columns):
    """Noise; ``columns``: functions of (method, size, noise) -> number, in their order."""
    rng, rows = np.random.default_rng(seed), []
    for method, size, run in itertools.product(range(len(methods)), range(sizes), range(seeds)):
        row = {"panel": "", "size": f"[{size}]", "method": methods[method], "seed": run}
        row |= {"status": "done", "value": rng.normal(), "train_loss": rng.normal()}
        row["flatness_trace"] = rng.normal()
        for name, of in columns.items():
            row[name] = of(method, size, row)
        rows.append(row)
    return pd.DataFrame(rows)


def of(found, comparison, scope, measure="trace"):
    rows = found[(found["comparison"] == comparison) & (found["scope"] == scope)]
    return rows.set_index("measure").loc[measure]


def test_of_one_method_it_is_spearmans_correlation():
    cells = table(methods=("sgd",), sizes=4, seeds=3)
    row = of(flatness_correlation(cells), WITHIN, OVER)
    exact = stats.spearmanr(cells["flatness_trace"], cells["value"]).statistic
    assert row["rho"] == pytest.approx(exact)
    assert row["n"] == 12


def test_given_the_loss_it_is_the_partial_correlation_of_ranks():
    cells = table(
        methods=("sgd",),
        sizes=8,
        seeds=3,
        flatness_trace=lambda m, s, r: r["train_loss"] + r["value"] + r["flatness_trace"],
    )
    row = of(flatness_correlation(cells), WITHIN, OVER)
    names = ["flatness_trace", "value", "train_loss"]
    xy, xz, yz = stats.spearmanr(cells[names]).statistic[[0, 0, 1], [1, 2, 2]]
    exact = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert row["rho_given_loss"] == pytest.approx(exact)


def test_what_is_true_of_methods_is_not_said_of_runs_and_the_reverse():
    """Flatter methods are better, flatter runs of one method are worse."""
    cells = table(
        value=lambda m, s, r: 10 * m + r["value"],
        flatness_trace=lambda m, s, r: 100 * m - r["value"],
    )
    found = flatness_correlation(cells)
    for scope in (OVER, INSIDE):
        assert of(found, BETWEEN, scope)["rho"] > 0.9
        assert of(found, BETWEEN, scope)["p"] < 0.01
    assert of(found, WITHIN, INSIDE)["rho"] < 0.0
    assert of(found, WITHIN, INSIDE)["p"] < 0.01


def test_what_only_the_training_loss_explains_is_gone_at_matched_loss():
    """Methods that fit more are sharper and better; flatness adds nothing to that."""
    cells = table(
        train_loss=lambda m, s, r: -m + 0.1 * r["train_loss"],
        flatness_trace=lambda m, s, r: -r["train_loss"] + r["flatness_trace"],
        value=lambda m, s, r: -r["train_loss"] + r["value"],
    )
    row = of(flatness_correlation(cells), BETWEEN, INSIDE)
    assert row["rho"] > 0.8
    assert row["p"] < 0.01
    assert abs(row["rho_given_loss"]) < 0.6
    assert row["p_given_loss"] > 0.05


def test_of_losses_positive_means_that_larger_numbers_are_better_too():
    cells = table(value=lambda m, s, r: -r["flatness_trace"])
    row = of(flatness_correlation(cells, maximize=False), WITHIN, INSIDE)
    assert row["rho"] == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.comparison}, {kind.scope}")
def test_of_nothing_but_noise_that_units_share_one_in_twenty_is_said_to_predict(kind):
    """Methods, sizes and seeds have their own levels: runs that share one are no own evidence."""
    studies, found = 300, 0
    for i in range(studies):
        rng = np.random.default_rng(1000 + i)
        shape = (1, 5, 5, 4)
        levels = lambda rng=rng: sum(
            rng.normal(size=s) for s in [(5, 1, 1), (5, 1), (4,), (5, 5, 4)]
        )
        x, y = (np.broadcast_to(levels(), shape) for _ in range(2))
        row = correlation._correlated(kind, x, y, np.zeros(shape), seed=0)
        found += row["p"] <= 0.05
    assert found / studies <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5


def test_few_units_are_said_to_be_too_few():
    cells = table(methods=("sgd", "sam"), sizes=3, seeds=5)
    found = flatness_correlation(cells)
    words = correlation.sentences(found, "test accuracy")
    assert any(
        text.startswith("Between methods, over sizes, there are too few methods") for text in words
    )
    assert any(
        text.startswith("Within methods, over sizes, there are too few sizes") for text in words
    )
    assert any(
        "Within methods, within a size, none of 1 measures go with test acc" in text
        for text in words
    )


def test_methods_that_lack_runs_are_left_out_and_counted():
    cells = table()
    lost = (cells["method"] == "wsam") & (cells["seed"] == 0)
    cells.loc[lost, "status"] = "failed"
    found = flatness_correlation(cells)
    whole = flatness_correlation(cells[cells["method"] != "wsam"])
    pd.testing.assert_frame_equal(found.drop(columns="left_out"), whole.drop(columns="left_out"))
    assert "1 methods or radii lack runs" in correlation.sentences(found, "accuracy")[-1]


def test_each_radius_counts_as_a_method():
    cells = table(rho=lambda m, s, r: np.nan if m == 0 else 0.05)
    more = cells[cells["method"] == "sam"].assign(rho=0.2)
    found = flatness_correlation(pd.concat([cells, more]), ["rho"])
    assert of(found, BETWEEN, INSIDE)["n"] == (len(METHODS) + 1) * 5


@pytest.mark.parametrize(
    "cells",
    [
        table().drop(columns="flatness_trace"),
        table()[:0],
        table(methods=("sgd",), sizes=1, seeds=1),
    ],
)
def test_without_measures_or_runs_nothing_is_said(cells):
    found = flatness_correlation(cells)
    assert found.empty
    assert correlation.sentences(found, "accuracy") == []


def test_many_measures_pay_for_being_many():
    cells = table()
    for i in range(20):
        cells[f"flatness_{i}"] = np.random.default_rng(i).normal(size=len(cells))
    found = flatness_correlation(cells)
    assert (found["p_adjusted"] >= found["p"]).all()
    assert (found["p"] <= 0.05).any()
    assert not (found["p_adjusted"] <= 0.05).any()


@pytest.mark.parametrize(
    "cells", [table().drop(columns="train_loss"), table().assign(train_loss=np.nan)]
)
def test_without_a_training_loss_nothing_is_matched(cells):
    found = flatness_correlation(cells)
    assert found["rho"].notna().all()
    assert found["rho_given_loss"].isna().all()
    assert not any("matched" in text for text in correlation.sentences(found, "accuracy"))
