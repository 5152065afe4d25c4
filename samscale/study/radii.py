r"""How the best value of a nuisance axis, such as the radius, moves over sizes.

Two measures, for each alone can be fooled:

- **each seed's own best**, and its mean over seeds. Where noise hides a flat curve, a seed's best
  lies anywhere; noise that falls with size then looks like a move;
- **the vertex** of the parabola through the mean curve, $-b / 2a$: a function of means, which noise
  does not move. It is known only where the curve surely bends down.

A move is sure where the slope of the first over sizes is, and that of the second agrees, where it
is known at three sizes or more. Both in $\log_{10}$ of the value where all values are positive.
"""

import numpy as np
import pandas as pd

from samscale.study import statistics
from samscale.study.choices import layout
from samscale.study.statistics import CELL, TREND, quantile

BY = ["panel", "method"]
SURE = 0.95  # one-sided, of a curve that bends down


def bests(runs, chosen, nuisance, axis):
    r"""A row per cell and seed: ``best`` and ``vertex`` on the scale of ``moves``, ``value``.

    ``value`` is the seed's best of the values that all its cell's seeds have, by ``choice``
    (``score`` where that is missing), the other axes at ``chosen``. ``covariance``: that of a
    true best anywhere within half a step of the grid, $\mathrm{step}^2 / 12$. The rows of
    ``vertex`` have the vertex as their mean and $(b_s + 2 v a_s) / 2a$ as their deviations from it,
    the delta method; NaN where the curve does not surely bend down, or its vertex lies further
    outside of the grid than the grid is wide. ``least`` and ``most``: the ends of the grid on that
    scale; ``log``: whether it is logarithmic.
    """
    columns = [*CELL, "position", "seed", "value", "best", "vertex", "covariance"]
    columns += ["least", "most"]
    keys = [*CELL, *(name for name in nuisance if name != axis)]
    kept = runs.dropna(subset=[axis]).merge(chosen[keys].drop_duplicates(), on=keys)
    log = bool((kept[axis].astype(float) > 0).all())
    whole = kept["choice"].notna().groupby([kept[name] for name in CELL]).transform("all")
    score = kept["choice"].where(whole, kept["score"]).to_numpy()
    seed, value = kept["seed"].to_numpy(), kept[axis].to_numpy(float)
    parts, first = [np.zeros((0, 7))], []
    for at in kept.groupby(CELL, sort=False).indices.values():
        seeds, values, row = layout(seed[at], value[at])
        common = (row >= 0).all(0)
        if common.any():
            scale = np.log10(values[common]) if log else values[common]
            curves = score[at][row[:, common]]
            parts.append(_best(seeds, values[common], scale, curves))
            first.append(np.full(len(seeds), at[0]))
    table = pd.DataFrame(np.concatenate(parts), columns=columns[5:])
    about = kept[columns[:5]].iloc[np.concatenate(first).astype(int) if first else []]
    table = pd.concat([about.reset_index(drop=True), table], axis=1).assign(log=log)
    return table.astype({"seed": int})


def _best(seeds, values, scale, curves):
    """Of one cell, a row per seed, its score at each value in ``curves`` (seeds, values)."""
    pick = curves.argmax(1)
    step = np.ptp(scale) / (len(scale) - 1) if len(scale) > 1 else 0.0
    vertex = _vertices(curves, scale)
    same = (np.full(len(seeds), number) for number in (step**2 / 12, scale[0], scale[-1]))
    return np.column_stack([seeds, values[pick], scale[pick], vertex, *same])


def moves(found):
    """Per panel and method: the slope of the best over position, its interval, and ``sure``.

    ``sure`` is +1, -1 or 0; never before ``TREND`` sizes.
    """
    trend = statistics.slopes(found, BY, "best")
    bend = found.dropna(subset=["vertex"]).drop(columns="covariance")
    bend = statistics.slopes(bend, BY, "vertex").set_index(BY).reindex(trend.set_index(BY).index)
    sure = statistics.excludes_zero(trend["low"], trend["high"])
    known = (bend["sizes"] >= TREND).to_numpy()
    agreed = statistics.excludes_zero(bend["low"], bend["high"]).to_numpy() == sure
    sure = sure.where((agreed | ~known) & (trend["sizes"] >= TREND), 0)
    return trend.assign(sure=sure)


def _vertices(curves, at):
    """Of each seed (rows), what it adds to the vertex of the mean parabola; see `bests`."""
    unknown = np.full(len(curves), np.nan)
    if len(at) < 3 or len(curves) < 2:
        return unknown
    middle, width = at.mean(), np.ptp(at)
    x = at - middle
    _, b, a = np.linalg.lstsq(np.stack([x**0, x, x**2], axis=1), curves.T, rcond=None)[0]
    doubt = quantile(len(a) - 1, 2 * SURE - 1) * a.std(ddof=1) / np.sqrt(len(a))
    if not a.mean() + doubt < 0:
        return unknown
    vertex = -b.mean() / (2 * a.mean())
    if abs(vertex) > 1.5 * width:
        return unknown
    return middle + vertex - (b + 2 * vertex * a) / (2 * a.mean())
