r"""Tables in, tables out: choices, pairs, means, slopes and what is known of them.

Conventions of every function here:

- ``runs`` holds finished runs only, with ``position`` ($\log_{10} x$, or $x$) beside ``x``;
- an interval is Student's, 95 % unless told otherwise, and NaN where $n = 1$;
- what is compared is compared within a seed first, then over seeds.
"""

import numpy as np
import pandas as pd
from scipy.special import stdtrit

PLACE = ["panel", "size", "x"]
CELL = [*PLACE, "method"]
PAIR = ["panel", "method", "against", "protocol"]


def interval(table, by, column, level=0.95):
    r"""Per group: n, mean, sem $= s / \sqrt n$, low and high $=$ mean $\pm\, t_{n-1}$ sem.

    Student's t at any n: it covers from n = 2 on, where a bootstrap of five seeds covers 84 %.
    """
    groups = table.groupby(by, dropna=False, sort=False)[column]
    out = groups.agg(n="count", mean="mean", sem="sem")
    half = _t(out["n"] - 1, level) * out["sem"]
    return out.assign(low=out["mean"] - half, high=out["mean"] + half).reset_index()


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


def choose(fixed, score):
    """The row of the highest ``score`` per cell; ties go to the smallest nuisance value.

    A score that is not finite is none. A cell without scores has no winner, unless there is only
    one candidate.
    """
    kept = fixed.assign(score=score.where(np.isfinite(score)))[candidates(fixed)]
    rivals = kept.groupby(CELL, sort=False)["n"].transform("size")
    kept = kept[kept["score"].notna() | (rivals == 1)]
    best = kept.sort_values("score", ascending=False, kind="stable").drop_duplicates(CELL)
    return best.sort_index().drop(columns="score")


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


def pair(runs, picked, nuisance, baselines):
    """``gain`` = ``score`` of a method minus that of a baseline, seed by seed.

    ``picked`` are the runs at chosen values, per ``protocol``, and are compared with each other;
    protocol "rho=0.05" compares that value with the baseline at the same values of its own axes.
    """
    fixed = runs.merge(_labels(runs, nuisance), on=list(nuisance)) if nuisance else runs[:0]
    columns = [*CELL, "against", "protocol", "seed", "gain", "position"]
    tables = [picked.assign(against="", gain=np.nan)[columns][:0]]
    for name in baselines:
        tables.append(_minus(picked, picked, name, baselines, ["protocol"]))
        axes = [axis for axis in nuisance if runs.loc[runs["method"] == name, axis].notna().any()]
        tables.append(_minus(fixed, runs, name, baselines, axes))
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)[columns]


def slopes(table, by, column):
    r"""Per group: the slope of ``column`` over position, a slope per seed, then Student's t.

    With $b_s$ the least-squares slope of seed $s$ and $w_s = \sum (x - \bar x_s)^2$,

    $$b = \sum w_s b_s / \sum w_s, \quad
      \mathrm{sem}^2 = \frac{\sum w_s (b_s - b)^2}{(n - 1) \sum w_s}.$$

    Where every seed has every size, that is the plain mean and its standard error; else a seed
    counts as much as the sizes it has can tell. ``n``: seeds with two sizes or more.
    """
    seeds = table.groupby([*by, "seed"], sort=False)
    x = table["position"] - seeds["position"].transform("mean")
    parts = table[[*by, "seed"]].assign(w=x**2, wb=x * table[column])
    parts = parts[seeds["x"].transform("nunique") > 1]
    parts = parts.groupby([*by, "seed"], sort=False).sum().reset_index()
    groups = parts.groupby(by, sort=False)
    slope = groups["wb"].transform("sum") / groups["w"].transform("sum")
    parts["squares"] = parts["w"] * (parts["wb"] / parts["w"] - slope) ** 2
    out = parts.groupby(by, sort=False).agg(
        n=("w", "size"), w=("w", "sum"), wb=("wb", "sum"), squares=("squares", "sum")
    )
    out["slope"] = out["wb"] / out["w"]
    half = _t(out["n"] - 1) * np.sqrt(out["squares"] / (out["n"] - 1) / out["w"])
    out = out.assign(low=out["slope"] - half, high=out["slope"] + half)
    sizes = table.groupby(by, sort=False)["x"].nunique().rename("sizes").reset_index()
    out = sizes.merge(out[["slope", "low", "high", "n"]].reset_index(), on=by, how="left")
    return out.assign(n=out["n"].fillna(0).astype(int))


def kendall(table, by, column):
    """Per group: Kendall's tau-b of ``column`` over x, and its p; NaN where either is constant."""
    from scipy.stats import kendalltau  # here: its import takes longer than an analysis

    def row(group):
        return kendalltau(group["x"], group[column]) if len(group) > 1 else (np.nan, np.nan)

    kinds = {**table.dtypes[by], "tau": float, "p": float}
    rows = [(*key, *row(group)) for key, group in table.groupby(by, sort=False)]
    return pd.DataFrame(rows, columns=[*by, "tau", "p"]).astype(kinds)


def peak(table, by, column):
    """Per group: how far the size with the highest mean lies above the first and the last size.

    Paired by seed: ``x``, ``rise``, ``rise_sure``, ``fall``, ``fall_sure``. Sure: the interval lies
    above zero, at a level that pays for picking the highest of so many sizes (Bonferroni).
    """
    if table.empty:
        return table[by].assign(x=0.0, rise=0.0, fall=0.0, rise_sure=False, fall_sure=False)
    wide = table.groupby([*by, "seed", "x"])[column].mean().unstack()  # (seeds of groups, sizes)
    groups = wide.groupby(level=by, sort=False)
    means = groups.mean()
    known = means.notna().to_numpy()
    top = np.nanargmax(means.to_numpy(), axis=1)
    first, last = known.argmax(1), known.shape[1] - 1 - known[:, ::-1].argmax(1)
    seeds, group = np.arange(len(wide)), groups.ngroup().to_numpy()
    best, start, end = (wide.to_numpy()[seeds, at[group]] for at in (top, first, last))
    steps = pd.DataFrame({"rise": best - start, "fall": best - end}, index=wide.index)
    steps = steps.groupby(level=by, sort=False)
    level = 1 - 0.05 / np.maximum(known.sum(1) - 1, 1)
    half = _t(steps.count() - 1, level[:, None]) * steps.sem()
    sure = excludes_zero(steps.mean() - half, steps.mean() + half) > 0
    out = steps.mean().join(sure.add_suffix("_sure"))
    return out.assign(x=means.columns[top]).reset_index()


def excludes_zero(low, high):
    """+1 where an interval lies above zero, -1 where below, else 0.

    An interval without width says that a metric is coarse, or that seeds change nothing: 0.
    """
    wide = (high - low) > 1e-9 * (high + low).abs()
    return ((low > 0) & wide).astype(int) - ((high < 0) & wide).astype(int)


def headline(table):
    """The rows to be quoted: protocol "validation" of a method, or "test" where it has no other."""
    rows = table[table["protocol"].isin(["validation", "test"])]
    last = rows.groupby(["panel", "method"])["protocol"].transform("max")  # v comes after t
    return rows[rows["protocol"] == last]


def _minus(ours, theirs, name, baselines, keys):
    """Rows of ``ours`` that are no baseline, minus those of ``name`` with the same keys."""
    keys = ["panel", "size", "seed", *keys]
    ours = ours[~ours["method"].isin(baselines)]
    theirs = theirs.loc[theirs["method"] == name, [*keys, "score"]]
    both = ours.merge(theirs, on=keys, suffixes=("", "_against"))
    return both.assign(against=name, gain=both["score"] - both["score_against"])


def _labels(runs, nuisance):
    """A row per combination of nuisance values, with its name: "rho=0.05, learning_rate=0.1"."""
    values = runs[list(nuisance)].drop_duplicates().dropna(how="all")
    words = [
        ", ".join(f"{axis}={value:g}" for axis, value in row.items() if value == value)
        for row in values.to_dict("records")
    ]
    return values.assign(protocol=pd.Series(words, index=values.index, dtype=object))


def _t(freedom, level=0.95):
    """Student's quantile that holds ``level`` in the middle; NaN without degrees of freedom."""
    freedom = np.asarray(freedom, float)
    return stdtrit(np.where(freedom > 0, freedom, np.nan), (1 + np.asarray(level, float)) / 2)
