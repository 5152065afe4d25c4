"""Runs that spoil a mean: far from the other seeds, or no better than a constant prediction."""

import numpy as np
import pandas as pd

FAR = 6.0  # robust standard deviations
SCALE = 1.4826  # from a median absolute deviation to a standard deviation of normal numbers
LEAST = 1e-3  # of the median: a spread that a metric may have by rounding, or by one example


def outliers(picked, runs):
    r"""The rows of ``picked`` that lie ``FAR`` from the median of their cell's seeds.

    In units of the largest of three spreads: the seeds' own, $1.4826 \cdot$ median $|v - m|$; that
    of all runs of the size about the medians of their cells and nuisance values (``around``), for
    few seeds may agree by chance; and ``LEAST`` of the median. Cells of one or two seeds have no
    outliers. Adds ``median`` and ``far``, the distance in those units, the farthest first.
    """
    cell = ["panel", "size", "method"]
    groups = picked.groupby(cell, sort=False)["value"]
    median = groups.transform("median")
    away = (picked["value"] - median).abs()
    own = SCALE * away.groupby([picked[name] for name in cell], sort=False).transform("median")
    place = ["panel", "size"]
    deviations = runs.assign(around=runs["around"].abs())
    deviations = deviations[deviations["around"] > 0]
    typical = deviations.groupby(place, sort=False)["around"].median()
    keys = pd.MultiIndex.from_frame(picked[place])
    shared = SCALE * typical.reindex(keys).fillna(0.0).to_numpy()
    scale = np.maximum(np.maximum(own, shared), LEAST * median.abs())
    far = (away / scale.where(scale > 0)).where(groups.transform("count") > 2, 0.0)
    found = picked.assign(median=median, far=far)[far > FAR]
    return found.sort_values("far", ascending=False, kind="stable")


def around_medians(runs, by):
    """``value`` less the median of its group, which most seeds of the group stand near."""
    medians = runs.groupby(by, dropna=False, sort=False)["value"].transform("median")
    return runs["value"] - medians


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
