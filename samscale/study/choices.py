r"""Which nuisance value a method runs at: chosen on validation, on other seeds, or on test.

A run's luck in training is shared by its validation and its test metric. A value that is chosen on
the validation of a seed therefore flatters the test metric of the same seed. Chosen on the *other*
seeds it does not: the mean is unbiased. Its price is a covariance, for the seeds' choices rest on
common seeds; `other_seeds` estimates it, and `statistics.interval` adds it.
"""

import functools

import numpy as np
import pandas as pd

from samscale.study.statistics import CELL, interval

FAR = 4.0  # robust standard deviations, beyond which a run tells nothing of ordinary luck
DRAWS = 200_000  # normal numbers of a simulation of `overlap`


def every_value(runs, nuisance):
    """A row per cell and nuisance value: `interval` of ``value``, means of what else is reported.

    ``select`` is NaN unless every seed has one.
    """
    by = [*CELL, *nuisance]
    out = interval(runs, by, "value")
    groups = runs.groupby(by, dropna=False, sort=False)
    means = groups[["select", "seconds", "gradients"]].mean()
    means["select"] = means["select"].where(groups["select"].count() == groups.size())
    return pd.concat([out, means.reset_index(drop=True)], axis=1)


def candidates(fixed):
    """Which rows may win: those with as many seeds as the best-covered value of their cell."""
    return fixed["n"] == fixed.groupby(CELL, sort=False)["n"].transform("max")


def pooled(fixed, score):
    """The row of the highest ``score`` per cell; ties go to the smallest nuisance value.

    A cell without scores has no winner, unless there is only one candidate.
    """
    best = _rivals(fixed, score).sort_values("score", ascending=False, kind="stable")
    return best.drop_duplicates(CELL).sort_index().drop(columns="score")


def other_seeds(runs, fixed, nuisance):
    r"""Each seed's run at the value that the other seeds choose, a row each, with ``covariance``.

    Seed $s$ takes $j(s) = \arg\max_j \sum_{s' \ne s} v_{s'j}$, where $v$ is ``choice`` (``select``,
    positive is better). Candidates are those of the pooled choice. A lone seed has no others, and
    takes its own best. A seed without a finished run at its value is left out.

    ``covariance``: between two seeds' test metrics at chosen values. In a regression of test on
    validation within cells, $t_{sj} = \beta v_{sj} + e_{sj}$, only $\beta v$ is seen by choices of
    other seeds, so that it is $\beta^2 \sigma_v^2$ times `overlap`; $\beta$ and $\sigma_v^2$ are
    estimated from the residuals of all seeds and of the values that may be chosen, less the means
    of both, outliers clipped. The variance of the mean over n seeds is then $s^2 / n$ plus the
    covariance.
    """
    rivals = _rivals(fixed, fixed["select"])[[*CELL, *nuisance]]
    kept = runs.merge(rivals, on=[*CELL, *nuisance]) if len(rivals) else runs[:0]
    kept = kept.assign(covariance=0.0)
    if kept.empty or not nuisance:
        return kept
    kept["_value"] = kept.groupby(list(nuisance), dropna=False).ngroup()
    several = kept.groupby(CELL, sort=False)["_value"].transform("nunique") > 1
    chosen, rest = kept[several], kept[~several]
    columns = [chosen[name].to_numpy() for name in ("seed", "_value", "choice", "score")]
    rows, extra = [], []
    for at in chosen.groupby(CELL, sort=False).indices.values():
        own, covariance = _of_others(*(column[at] for column in columns))
        rows.append(at[own])
        extra.append(np.full(len(own), covariance))
    if rows:
        chosen = chosen.iloc[np.concatenate(rows)].assign(covariance=np.concatenate(extra))
        kept = pd.concat([rest, chosen]).sort_index()
    return kept.drop(columns="_value")


def at_edge(chosen, grid, nuisance):
    """Which chosen values are the first or last of two or more, on any axis of ``grid``.

    The grid is what was planned for the cell, finished or not.
    """
    edge = pd.Series(False, index=chosen.index)
    by = ["panel", "size", "method"]
    for axis in nuisance:
        ends = grid.groupby(by, sort=False)[axis].agg(["min", "max", "nunique"]).reset_index()
        ends = chosen[by].merge(ends, on=by, how="left").set_index(chosen.index)
        outermost = (chosen[axis] == ends["min"]) | (chosen[axis] == ends["max"])
        edge |= outermost & (ends["nunique"] > 1)
    return edge


def tries(cells, nuisance):
    """How many nuisance values each method was planned to have at a size, at most."""
    if not nuisance:
        return pd.Series(1, index=cells["method"].unique())
    by = ["panel", "size", "method"]
    distinct = cells.drop_duplicates([*by, *nuisance])
    counts = distinct.groupby(by, sort=False).size()
    return counts.groupby(level="method", sort=False).max()


@functools.cache
def overlap(seeds, values):
    r"""$E[z_{1,j(1)} z_{2,j(2)}]$ of standard normal $z$ (seeds, values), j chosen on the others.

    The largest over fewer values too, for some may be out of the race. Simulated from a fixed seed,
    ``DRAWS`` numbers each.
    """
    if seeds < 2 or values < 2:
        return 0.0
    fewer = {k for k in (2, 3, 5, 8, 13, 21, 34) if k < values} | {values}
    return max(_simulated_overlap(seeds, k) for k in fewer)


def _simulated_overlap(seeds, values):
    draws = max(500, DRAWS // (seeds * values))
    z = np.random.default_rng(0).normal(size=(draws, seeds, values))
    picked = (z.sum(1, keepdims=True) - z).argmax(2)
    x = np.take_along_axis(z, picked[..., None], 2)[..., 0]
    products = x.sum(1) ** 2 - (x**2).sum(1)
    return max(0.0, float(products.mean()) / (seeds * (seeds - 1)))


def _rivals(fixed, score):
    """Candidates with a ``score``, and lone candidates without one."""
    kept = fixed.assign(score=score.where(np.isfinite(score)))[candidates(fixed)]
    alone = kept.groupby(CELL, sort=False)["score"].transform("size") == 1
    return kept[kept["score"].notna() | alone]


def layout(seed, value):
    """Seeds, values, and the row of each (seeds, values): -1 where a cell has no such run."""
    (seeds, s), (values, v) = (np.unique(x, return_inverse=True) for x in (seed, value))
    row = np.full((len(seeds), len(values)), -1)
    row[s, v] = np.arange(len(seed))
    return seeds, values, row


def _of_others(seed, value, choice, score):
    """Of one cell: which rows are picked, and their covariance."""
    seeds, values, row = layout(seed, value)
    chosen_by = np.where(row >= 0, choice[row], 0.0)
    total, count = chosen_by.sum(0), (row >= 0).sum(0)
    if len(seeds) > 1:
        total, count = total - chosen_by, count - (row >= 0)
    means = np.where(count > 0, total / np.maximum(count, 1), -np.inf).reshape(-1, len(values))
    best = means.max(1, keepdims=True)
    picked = (means >= best - 1e-12 * np.abs(best)).argmax(1)  # rounding breaks no ties
    own = row[np.arange(len(seeds)), picked]
    return own[own >= 0], _covariance(row, choice, score)


def _covariance(row, choice, score):
    """`other_seeds` says what it is; zero where fewer than two seeds have every value."""
    whole = row[(row >= 0).all(1)]
    if len(whole) < 2:
        return 0.0
    v, scale = _without_outliers(choice[whole])
    t, _ = _without_outliers(score[whole])
    means = v.mean(0)
    race = means >= means.max() - FAR * scale * np.sqrt(2 / len(v))  # the others are not chosen
    v, t = _without_means(v[:, race]), _without_means(t[:, race])
    spread = (v * v).sum()
    if race.sum() < 2 or spread <= (1e-12 * np.abs(means).max()) ** 2:
        return 0.0
    freedom = (v.shape[0] - 1) * (v.shape[1] - 1)
    return max(0.0, (v * t).sum()) ** 2 / spread / freedom * overlap(len(row), v.shape[1])


def _without_outliers(table):
    """Clipped ``FAR`` robust standard deviations from the medians of columns; and that deviation.

    A run that collapses says nothing of the luck of those that do not.
    """
    middle = np.median(table, axis=0)
    away = np.abs(table - middle)
    scale = 1.4826 * np.median(away[away > 0]) if away.any() else 0.0
    return np.clip(table, middle - FAR * scale, middle + FAR * scale), scale


def _without_means(table):
    return table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
