r"""How far our numbers lie from a paper's, with the errors of both.

A paper's ``mean`` at ``x`` has a standard error over its n runs, so that both sides have Student's
intervals, and their difference has Welch's.
"""

import numpy as np
import pandas as pd

from samscale.study.statistics import headline, p_value, quantile

RUNS = 3  # a published mean is of, where it does not say
NEAR = 0.01  # the relative distance within which an ``x`` is the same
SLOPE = "slope"  # the place of a row that compares slopes
COLUMNS = ["panel", "series", "method", "protocol", "size", "x", "ours", "ours_sem", "paper"]
COLUMNS += ["paper_sem", "difference", "sem", "low", "high", "p", "sizes"]


def compare(gains, chosen, paper, design):
    r"""A row per published point that we have measured too, and one for each slope over them.

    ``paper`` is what ``grid.published`` gives. Series "gain" is compared with the gain of every
    method over ``design.baseline``, any other with that method's metric. Once by the protocol that
    is quoted, once by "test", as papers choose. ``difference`` is ours less the paper's, with
    $\mathrm{sem}^2$ the sum of both; a paper that prints no errors has none counted, and
    ``paper_sem`` is NaN. Slopes: least squares through the means of the sizes in common, of two
    or more, per unit of ``position`` ($\log_{10} x$ with ``log_x``).
    """
    ours = gains[gains["against"] == design.baseline].assign(series="gain")
    ours = pd.concat([ours, chosen.assign(series=chosen["method"])], ignore_index=True)
    ours = pd.concat([headline(ours), ours[ours["protocol"] == "test"]]).drop_duplicates()
    panels = list(dict.fromkeys(ours["panel"]))
    rows = []
    for (panel, series, method, protocol), found in ours.groupby(COLUMNS[:4], sort=False):
        own = paper.get(panel, paper if len(panels) == 1 else {})
        points = _matched(found, own.get(series, ()), own.get("n", paper.get("n", RUNS)))
        about = dict(zip(COLUMNS, (panel, series, method, protocol), strict=False))
        rows += [about | row for row in points]
        if len(points) > 1:
            rows.append(about | _slopes(points, design.log_x))
    return _tested(pd.DataFrame(rows, columns=[*COLUMNS, "ours_freedom", "paper_freedom"]))


def interval(mean, sem, n):
    """Student's 95 % interval of a published mean; NaN where it has no error or one run."""
    half = float(quantile(n - 1)) * sem if sem is not None else np.nan
    return mean - half, mean + half


def _matched(found, points, n):
    rows = []
    for x, mean, sem in points:
        near = found[(found["x"] - x).abs() <= NEAR * abs(x)]
        for row in near[:1].itertuples():
            at = {"size": row.size, "x": row.x, "sizes": 1, "paper": mean}
            at |= {"ours": row.mean, "ours_sem": row.sem, "ours_freedom": row.freedom}
            rows.append(at | {"paper_sem": np.nan if sem is None else sem, "paper_freedom": n - 1})
    return rows


def _slopes(points, log_x):
    table = pd.DataFrame(points)
    x = np.log10(table["x"]) if log_x else table["x"]
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    row = {"size": SLOPE, "x": np.nan, "sizes": len(table)}
    for side in ("ours", "paper"):
        parts = (weight * table[f"{side}_sem"]) ** 2
        variance = parts.sum(min_count=len(parts))
        freedom = variance**2 / (parts**2 / table[f"{side}_freedom"]).sum() if variance else np.nan
        row |= {side: (weight * table[side]).sum(), f"{side}_sem": np.sqrt(variance)}
        row[f"{side}_freedom"] = freedom
    return row


def _tested(table):
    numbers = [*COLUMNS[5:10], "ours_freedom", "paper_freedom"]
    table = table.astype(dict.fromkeys(numbers, float))
    ours, paper = table["ours_sem"] ** 2, table["paper_sem"].fillna(0.0) ** 2
    variance = ours + paper
    doubt = ours**2 / table["ours_freedom"] + (paper**2 / table["paper_freedom"]).fillna(0.0)
    freedom = (variance**2 / doubt.where(doubt > 0)).to_numpy(float)
    sem, difference = np.sqrt(variance), table["ours"] - table["paper"]
    half = quantile(freedom) * sem
    table = table.assign(difference=difference, sem=sem, low=difference - half)
    table = table.assign(high=difference + half, p=p_value(difference, sem, freedom))
    return table[COLUMNS]
