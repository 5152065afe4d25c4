"""Runs that spoil a mean: far from the other seeds, or no better than a constant prediction."""

import numpy as np
import pandas as pd
from scipy.special import stdtr

FAR = 6.0  # robust standard deviations, beyond which a run is an outlier whatever the others do
SOME = 3.0  # of them, beyond which it is one if the other seeds agree as closely as chance forbids
SCALE = 1.4826  # from a median absolute deviation to a standard deviation of normal numbers
QUARTER = 1.1503  # standard deviations, beyond which a quarter of normal numbers lie
LEAST = 1e-3  # of the median: a spread that a metric may have by rounding, or by one example


def outliers(runs, by):
    r"""The rows of ``runs`` that lie far from the median m of the seeds of their group.

    In units of the spread of the size, a quarter of whose $|v - m| > 0$ over all groups lie beyond
    1.15 of it (few seeds may agree by chance), and at least ``LEAST`` of m, these are runs

    - beyond ``FAR`` of them, and of the seeds' own, $1.4826 \cdot$ median $|v - m|$;
    - or beyond ``SOME``, whose distance from the mean of the other seeds is too large at 5 % over
      all runs (Student's t with n - 2 degrees of freedom, Bonferroni; four seeds or more).

    Groups of one or two seeds have no outliers. Adds ``median`` and ``far``, the distance in those
    units; the farthest come first.
    """
    keys = [runs[name] for name in by]
    median = runs["value"].groupby(keys, dropna=False, sort=False).transform("median")
    apart = runs["value"] - median
    away = apart.abs()
    own = SCALE * away.groupby(keys, dropna=False, sort=False).transform("median")
    place = [runs["panel"], runs["size"]]
    spread = away.where(away > 0).groupby(place, sort=False).quantile(0.75) / QUARTER
    shared = spread.reindex(pd.MultiIndex.from_arrays(place)).set_axis(runs.index)
    scale = np.maximum(shared.fillna(0.0), LEAST * median.abs())
    p, n = _from_the_others(apart, keys)
    far = away / scale.where(scale > 0)
    alone = (far > SOME) & (p * max(1, (n > 3).sum()) < 0.05)
    gross = (far > FAR) & (away > FAR * own) & (n > 2)
    found = runs.assign(median=median, far=far)[alone | gross]
    return found.sort_values("far", ascending=False, kind="stable")


def _from_the_others(values, keys):
    """Of each value, p of its distance from the others of its group; and how many the group has."""
    n, total = (
        values.groupby(keys, dropna=False, sort=False).transform(how) for how in ("count", "sum")
    )
    squares = (values**2).groupby(keys, dropna=False, sort=False).transform("sum")
    others = (n - 1).where(n > 3)
    mean = (total - values) / others
    variance = (squares - values**2 - others * mean**2).clip(lower=0) / (others - 1)
    sem = np.sqrt(variance * (1 + 1 / others))
    t = (values - mean).abs() / sem.where(sem > 0)
    p = 2 * stdtr((others - 1).to_numpy(float), -t.where(sem > 0, np.inf).to_numpy(float))
    return pd.Series(p, index=values.index).where(others.notna(), 1.0), n


def unlearned(picked, metric, maximize):
    """Cells whose mean over seeds is no better than the best constant prediction, ``chance``.

    Accuracies must lie above it by a fifth of it or by two points, whichever is less; other metrics
    by half a percent of it. Columns: panel, size, method, value, chance. Cells whose runs do not
    report ``chance`` are left out.
    """
    columns = ["panel", "size", "method", "value", "chance"]
    if "chance" not in picked:
        return pd.DataFrame(columns=columns)
    means = picked.groupby(columns[:3], sort=False)[columns[3:]].mean().reset_index()
    chance = means["chance"].astype(float)
    accuracy = metric.endswith("accuracy")
    margin = np.minimum(0.2 * chance, 0.02) if accuracy else 5e-3 * chance.abs()
    better = means["value"] - chance if maximize else chance - means["value"]
    return means[better <= margin]
