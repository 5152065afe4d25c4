r"""Tables in, tables out: pairs, means, slopes and what is known of them.

Conventions of every function here:

- ``runs`` holds finished runs only, with ``position`` ($\log_{10} x$, or $x$) beside ``x``;
- an interval is Student's, 95 % unless told otherwise, and NaN where $n = 1$;
- what is compared is compared within a seed first, then over seeds;
- a column ``covariance``, where a table has one, is that between the seeds of a group: it is added
  to the variance of their mean, for no number of seeds averages it away.
"""

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

PLACE = ["panel", "size", "x"]
CELL = [*PLACE, "method"]
PAIR = ["panel", "method", "against", "protocol"]
OTHERS, VALIDATION, TEST = "other seeds", "validation", "test"
PREFERENCE = (OTHERS, VALIDATION, TEST)  # of protocols: the first that exists is quoted
TREND = 3  # sizes that a verdict on a trend needs: through two, any line fits


def interval(table, by, column, level=0.95):
    r"""Per group: n, mean, sem, low and high $=$ mean $\pm\, t_f$ sem, and f, ``freedom``.

    $\mathrm{sem}^2 = s^2 / n + c$ with the covariance c, which is 0 where the table has none, and
    Satterthwaite's $f = (n - 1)\,\mathrm{sem}^4 / ((s^2 / n)^2 + c^2)$: without c, n - 1.
    Student's t at any n: it covers from n = 2 on, where a bootstrap of five seeds covers 84 %.
    """
    groups = table.groupby(by, dropna=False, sort=False)
    out = groups[column].agg(n="count", mean="mean", sem="sem")
    own = out["sem"] ** 2
    common = groups["covariance"].mean() if "covariance" in table else 0.0 * own
    variance = own + common
    parts = (own**2 + common**2).where(variance > 0, 1.0)
    freedom = (out["n"] - 1) * (variance**2).where(variance > 0, 1.0) / parts
    half = quantile(freedom, level) * np.sqrt(variance)
    out = out.assign(sem=np.sqrt(variance), low=out["mean"] - half, high=out["mean"] + half)
    return out.assign(freedom=freedom).reset_index()


def p_value(mean, sem, freedom):
    """Of Student's two-sided test that a mean is 0; NaN without a spread or freedom."""
    known = (sem > 1e-9 * np.abs(mean)) & (freedom > 0)
    freedom, t = (
        np.where(known, freedom, np.nan),
        np.where(known, mean / np.where(known, sem, 1), 0),
    )
    return 2 * stdtr(freedom, -np.abs(t))


def holm(p):
    """Holm's adjusted p values: all true hypotheses among them are kept with 95 % at p < 0.05.

    NaN are no hypotheses, and stay NaN. Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.asarray(p, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    scaled = p[order] * np.arange(len(order), 0, -1)
    out = np.full(p.shape, np.nan)
    out[order] = np.minimum(1, np.maximum.accumulate(scaled)) if len(order) else []
    return out


def headline(table):
    """The rows to be quoted: of each panel and method, those of the first protocol it has.

    In the order of ``PREFERENCE``; rows of a fixed value, such as protocol "rho=0.05", never are.
    """
    rows = table[table["protocol"].isin(PREFERENCE)]
    rank = rows["protocol"].map({name: k for k, name in enumerate(PREFERENCE)}).astype(int)
    best = rank.groupby([rows["panel"], rows["method"]]).transform("min")
    return rows[rank == best]


def pair(runs, picked, nuisance, baselines):
    """``gain`` = ``score`` of a method minus that of a baseline, seed by seed.

    ``picked`` are the runs at chosen values, per ``protocol``, and are compared with each other;
    protocol "rho=0.05" compares that value with the baseline at the same values of its own axes.
    ``covariance``: the sum of both methods', whose luck is independent.
    """
    runs = runs.assign(covariance=0.0)
    fixed = runs.merge(_labels(runs, nuisance), on=list(nuisance)) if nuisance else runs[:0]
    columns = [*CELL, "against", "protocol", "seed", "gain", "position", "covariance"]
    tables = [picked.assign(against="", gain=np.nan)[columns][:0]]
    for name in baselines:
        tables.append(_minus(picked, picked, name, baselines, ["protocol"]))
        axes = [axis for axis in nuisance if runs.loc[runs["method"] == name, axis].notna().any()]
        tables.append(_minus(fixed, runs, name, baselines, axes))
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)[columns]


def slopes(table, by, column):
    r"""Per group: the least-squares slope of the sizes' means over position, and its interval.

    With $w_k = (x_k - \bar x) / \sum (x - \bar x)^2$ and $u_k = s_k^2 / n_k$ of size k,

    $$b = \sum w_k \bar y_k, \quad
      \mathrm{sem}^2 = \sum w_k^2 (u_k + c_k) + 2 r \sum_{k < l} w_k w_l \sqrt{u_k u_l}.$$

    Each size has a variance of its own, so noise may differ between sizes; n - 1 degrees of freedom
    of every size count (Satterthwaite), where a slope per seed has n - 1 in all. c is the
    ``covariance``. r is the mean correlation of sizes over seeds, for one seed at two sizes may
    share luck; it counts where it is positive and widens the interval. Its part and the rest are
    then taken to err together: $f = \mathrm{sem}^4 / (\sqrt D + C / \sqrt{n - 1})^2$ with
    $D = \sum w_k^4 (u_k^2 + c_k^2) / (n_k - 1)$ and C the part of r.

    Sizes with one seed have no variance and are left out, unless fewer than two others remain:
    then there is a slope without an interval. ``n``: seeds with two sizes or more. ``sizes``: those
    of the slope; ``span``: from the first position to the last; ``p``: of a slope of 0.
    """
    cells = _by_size(table, by, column)
    known = (cells["n"] > 1).groupby([cells[name] for name in by], sort=False).transform("sum")
    cells = cells[(cells["n"] > 1) | (known < 2)]
    groups = cells.groupby(by, sort=False)
    x = cells["position"] - groups["position"].transform("mean")
    w = x / (x**2).groupby([cells[name] for name in by], sort=False).transform("sum")
    parts = _weighted(cells, w, by)
    out = parts.groupby(by, sort=False).sum(min_count=1)
    known = parts.groupby(by, sort=False)["doubt"].count() == groups.size()
    out[["own", "doubt"]] = out[["own", "doubt"]].where(known)
    alike = _correlation(table, cells, by, column).reindex(out.index).clip(lower=0)
    shared = (alike * (out["signed"] ** 2 - out["alone"])).clip(lower=0).fillna(0.0)
    few = groups["n"].mean().sub(1).clip(lower=1)
    variance, doubt = out["own"] + shared, (np.sqrt(out["doubt"]) + shared / np.sqrt(few)) ** 2
    flat = variance == 0  # seeds change nothing: the interval is a point
    freedom = (variance**2).where(~flat, 1.0) / doubt.where(~flat, 1.0)
    sem = np.sqrt(variance)
    half = quantile(freedom) * sem
    p = p_value(out["slope"], sem, freedom)
    out = out[["slope"]].assign(low=out["slope"] - half, high=out["slope"] + half, sem=sem)
    out = out.assign(freedom=freedom, p=p).where(groups.size() > 1)
    out["sizes"], out["span"] = groups.size(), groups["position"].max() - groups["position"].min()
    many = table.groupby([*by, "seed"], sort=False)["x"].nunique().gt(1)
    return out.assign(n=many.groupby(level=by, sort=False).sum()).reset_index()


def _weighted(cells, w, by):
    """What each size adds to a slope, to its variance and to what is doubtful of that."""
    u, common, freedom = cells["variance"] / cells["n"], cells["covariance"], cells["n"] - 1
    return cells[by].assign(
        slope=w * cells["mean"],
        own=w**2 * (u + common),
        doubt=w**4 * (u**2 + common**2) / freedom.where(freedom > 0),
        signed=w * np.sqrt(u),
        alone=w**2 * u,
    )


def _by_size(table, by, column):
    """A row per group and size: position, n, mean, variance between seeds, covariance."""
    groups = table.groupby([*by, "x"], sort=False)
    cells = groups[column].agg(n="count", mean="mean", variance="var")
    cells["position"] = groups["position"].first()
    cells["covariance"] = groups["covariance"].mean() if "covariance" in table else 0.0
    return cells.reset_index()


def _correlation(table, cells, by, column):
    """Per group: the mean correlation between sizes over the seeds that they have in common."""
    key = [*by, "x"]
    rows = table[[*key, "seed", column]].merge(cells[[*key, "n", "mean", "variance"]], on=key)
    spread = np.sqrt(rows["variance"] * (rows["n"] - 1) / rows["n"])
    known = spread > 1e-12 * rows["mean"].abs()
    z = (rows[column] - rows["mean"]).where(known) / spread.where(known)
    rows = rows[by].assign(seed=rows["seed"], z=z, square=z**2, one=known.astype(float))
    seeds = rows.groupby([*by, "seed"], sort=False)[["z", "square", "one"]].sum()
    pairs = pd.DataFrame({"sum": seeds["z"] ** 2 - seeds["square"]})
    pairs["count"] = seeds["one"] * (seeds["one"] - 1)
    pairs = pairs.groupby(level=by, sort=False).sum()
    return pairs["sum"] / pairs["count"].where(pairs["count"] > 0)


def kendall(table, by, column):
    """Per group: Kendall's tau-b of ``column`` over x, and its p.

    NaN where either is constant, and for fewer than three sizes, of which every order is usual.
    """
    from scipy.stats import kendalltau  # here: its import takes longer than an analysis

    def row(group):
        return kendalltau(group["x"], group[column]) if len(group) >= TREND else (np.nan, np.nan)

    kinds = {**table.dtypes[by], "tau": float, "p": float}
    rows = [(*key, *row(group)) for key, group in table.groupby(by, sort=False)]
    return pd.DataFrame(rows, columns=[*by, "tau", "p"]).astype(kinds)


def peak(table, by, column):
    """Per group: how far the size with the highest mean lies above the first and the last size.

    Paired by seed: ``x``, ``rise``, ``rise_sure``, ``fall``, ``fall_sure``. Sure: the interval lies
    above zero, at a level that pays for picking the highest of so many sizes (Bonferroni), with the
    ``covariance`` of both sizes.
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
    common = _common(table, by, means)
    rows = np.arange(len(means))
    pairs = np.stack([common[rows, top] + common[rows, at] for at in (first, last)], axis=1)
    half = quantile(steps.count() - 1, level[:, None]) * np.sqrt(steps.sem() ** 2 + pairs)
    sure = excludes_zero(steps.mean() - half, steps.mean() + half) > 0
    out = steps.mean().join(sure.add_suffix("_sure"))
    return out.assign(x=means.columns[top]).reset_index()


def _common(table, by, means):
    """The ``covariance`` at each group and size of ``means``, 0 where the table has none."""
    if "covariance" not in table:
        return np.zeros(means.shape)
    found = table.groupby([*by, "x"])["covariance"].mean().unstack()
    return found.reindex(index=means.index, columns=means.columns).fillna(0.0).to_numpy()


def excludes_zero(low, high):
    """+1 where an interval lies above zero, -1 where below, else 0.

    An interval without width says that a metric is coarse, or that seeds change nothing: 0.
    """
    wide = (high - low) > 1e-9 * (high + low).abs()
    return ((low > 0) & wide).astype(int) - ((high < 0) & wide).astype(int)


def quantile(freedom, level=0.95):
    """Student's quantile that holds ``level`` in the middle; NaN without degrees of freedom."""
    freedom = np.asarray(freedom, float)
    return stdtrit(np.where(freedom > 0, freedom, np.nan), (1 + np.asarray(level, float)) / 2)


def _minus(ours, theirs, name, baselines, keys):
    """Rows of ``ours`` that are no baseline, minus those of ``name`` with the same keys."""
    keys = ["panel", "size", "seed", *keys]
    ours = ours[~ours["method"].isin(baselines)]
    theirs = theirs.loc[theirs["method"] == name, [*keys, "score", "covariance"]]
    both = ours.merge(theirs, on=keys, suffixes=("", "_against"))
    gain = both["score"] - both["score_against"]
    common = both["covariance"] + both["covariance_against"]
    return both.assign(against=name, gain=gain, covariance=common)


def _labels(runs, nuisance):
    """A row per combination of nuisance values, with its name: "rho=0.05, learning_rate=0.1"."""
    values = runs[list(nuisance)].drop_duplicates().dropna(how="all")
    words = [
        ", ".join(f"{axis}={value:g}" for axis, value in row.items() if value == value)
        for row in values.to_dict("records")
    ]
    return values.assign(protocol=pd.Series(words, index=values.index, dtype=object))
