"""Runs that spoil a mean: far from the other seeds, or no better than a constant prediction."""

import numpy as np
import pandas as pd

FAR = 4.0  # robust standard deviations
SCALE = 1.4826  # from a median absolute deviation to a standard deviation of normal numbers
LEAST = 1e-3  # of the median: a spread that a metric may have by rounding, or by one example


def outliers(runs, by):
    r"""The rows of ``runs`` that lie ``FAR`` from the median of their group's seeds.

    In units of the largest of three spreads: the seeds' own, $1.4826 \cdot$ median $|v - m|$; that
    of all runs of the size about the medians of their groups, for few seeds may agree by chance;
    and ``LEAST`` of the median; times $\sqrt{n / (n - 1)}$. Groups of one or two seeds have no outliers. Adds ``median`` and
    ``far``, the distance in those units; the farthest come first.
    """
    groups = runs.groupby(by, dropna=False, sort=False)["value"]
    median = groups.transform("median")
    away = (runs["value"] - median).abs()
    keys = [runs[name] for name in by]
    own = SCALE * away.groupby(keys, dropna=False, sort=False).transform("median")
    place = [runs["panel"], runs["size"]]
    shared = SCALE * away.where(away > 0).groupby(place, sort=False).transform("median")
    scale = np.maximum(np.maximum(own, shared.fillna(0.0)), LEAST * median.abs())
    n = groups.transform("count")
    scale = scale * np.sqrt(n / (n - 1).clip(lower=1))  # as a new one lies from the mean of others
    far = (away / scale.where(scale > 0)).where(n > 2, 0.0)
    found = runs.assign(median=median, far=far)[far > FAR]
    return found.sort_values("far", ascending=False, kind="stable")


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
