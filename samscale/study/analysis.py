"""What a study says: gains with their errors, trends with their verdicts, and what to distrust.

Pure functions of the table of runs: no disk, no clock. A study that is still running can be
analysed at any time; pairs are formed from what exists, and the warnings say what is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from samscale.study import (
    agreement,
    choices,
    power,
    radii,
    ranks,
    sentences,
    statistics,
    suspects,
)
from samscale.study.statistics import CELL, OTHERS, PAIR, TEST, TREND, VALIDATION, headline

STATS = ["n", "mean", "sem", "low", "high"]
COSTS = ["seconds", "gradients"]
_SIGNED = {"score": "value", "choice": "select"}  # so that more is better
VERDICTS = {1: "grows", 0: "no evidence", -1: "shrinks"}


class Design(NamedTuple):
    """What the analysis must know about a study."""

    nuisance: tuple[str, ...]  # columns of which only the best value counts, such as rho
    baseline: str = "sgd"
    metric: str = "accuracy"  # told in % points; any other in its own unit
    split: str = "test"  # that the metric is of
    maximize: bool = True
    x_name: str = "parameters"
    log_x: bool = True
    paper: Mapping[str, Any] = {}  # what ``grid.published`` gives, to be compared with


@dataclass(frozen=True)
class Analysis:
    """What `analyse` returns: tables whose intervals are 95 % over seeds, and sentences."""

    chosen: pd.DataFrame
    fixed: pd.DataFrame
    paired: pd.DataFrame
    gains: pd.DataFrame
    trends: pd.DataFrame
    radius: pd.DataFrame
    warnings: list[str]
    answer: str
    selection: list[str]  # what choosing on the same seeds or on test adds, in sentences
    agreement: pd.DataFrame  # with the paper's numbers, see `agreement.compare`
    bests: pd.DataFrame  # each seed's best radius, with its 95 % interval over seeds
    power: pd.DataFrame  # the smallest effects that this many seeds can tell, see `power.table`
    notes: list[str]  # on many intervals at once, on power, and on the paper, in sentences


def analyse(cells, design) -> Analysis:
    r"""How the gain over the baseline, and the best radius, change with ``x``.

    gain $= v_{\mathrm{method}} - v_{\mathrm{against}}$ of one seed (losses: the reverse), in the
    unit of ``value``. Nuisance values are chosen in one of four ways, the ``protocol``:

    - "other seeds", which is quoted: each seed's, by the mean of ``select`` over the *other* seeds;
      luck that a run's validation and test share then flatters nothing (see `choices`). A lone
      seed falls back on its own;
    - "validation": one for all, by the mean of ``select`` over all seeds;
    - "test": by the mean of ``value`` itself, as the paper does;
    - "rho=0.05": not at all.

    A value is a candidate only where it has as many seeds as the best-covered one. Without
    ``select`` there is neither of the first two where there is something to choose.

    ``chosen``: "other seeds" has the value that all seeds together choose, with the mean of the
    runs that the other seeds chose. ``gains``: Student's interval with ``freedom``; the rank-based
    one (`ranks.hodges_lehmann`); ``bias``, what a protocol adds to the gain by "other seeds"; and,
    of the rows to be quoted, ``p`` and ``p_holm``, over all of them.
    ``trends``: slope per factor of ten of x (per unit of it, without ``log_x``), see
    `statistics.slopes`; tau and p are Kendall's, of the mean gains over sizes; ``p_slope`` is the
    slope's, ``p_holm`` over all to be quoted. The verdict follows the interval of the slope alone,
    from three sizes on: 2.5 % of flat gains are said to grow, 2.5 % to shrink.
    ``radius``: a row per nuisance axis, where there are several; see `radii`. ``bests``: of the
    axis that stands for the radius.

    Raises:
      ValueError: a column is missing, or ``x`` is not positive while ``log_x``.
    """
    nuisance = list(design.nuisance)
    cells = _complete(cells, nuisance)
    runs = _finished(cells, design)
    fixed = choices.every_value(runs, nuisance)
    pooled = _pooled(fixed, design)
    picked = _picked(runs, fixed, pooled, nuisance)
    chosen = _chosen(picked, pooled, cells, design)
    paired = statistics.pair(runs, picked, nuisance, _baselines(cells, design))
    gains = _gains(paired)
    trends = _trends(paired, gains, design)
    worse = _worse(picked, design)
    radius, bests = _radius(runs, chosen, design)
    compared = agreement.compare(gains, chosen, design.paper, design)
    able = power.table(gains, trends, design.baseline)
    return Analysis(
        chosen=chosen[[*CELL, "protocol", *nuisance, *STATS, "edge", *COSTS]],
        fixed=fixed[[*CELL, *nuisance, *STATS, "select"]],
        paired=paired.drop(columns="position"),
        gains=gains,
        trends=trends,
        radius=radius,
        warnings=_warnings(cells, runs, picked, fixed, chosen, gains, paired, worse, design),
        answer=sentences.answer(headline(trends), headline(gains), worse, design),
        selection=list(sentences.selection(gains, design)),
        agreement=compared,
        bests=bests,
        power=able,
        notes=[
            *sentences.many(headline(gains)),
            *power.sentences(able, power.seconds_of_a_seed(cells), design),
            *sentences.agreement(compared, design),
        ],
    )


def _warnings(cells, runs, picked, fixed, chosen, gains, paired, worse, design):
    quoted = headline(picked)
    by = [*CELL, *design.nuisance]
    behind = quoted[[*by, "seed"]].drop_duplicates().assign(quoted=True)
    far = suspects.outliers(runs, by).merge(behind, on=[*by, "seed"], how="left")
    learned = suspects.unlearned(quoted, design.metric, design.maximize)
    return [
        *sentences.unfinished(cells),
        *sentences.unlearned(learned, design),
        *sentences.outliers(far, design),
        *sentences.choices(fixed, chosen, design),
        *sentences.lone_seeds(headline(chosen), design),
        *sentences.tries(choices.tries(cells, design.nuisance), design),
        *sentences.few_seeds(headline(gains)),
        *sentences.bends(_bends(paired), design),
        *(sentences.worse(row, design) for row in worse.itertuples()),
    ]


def _complete(cells, nuisance):
    kinds = dict.fromkeys([*CELL, "status", "reason"], str) | {"seed": int}
    kinds |= dict.fromkeys(["x", "select", "value", *COSTS, *nuisance], float)
    absent = [name for name in kinds if name not in cells]
    if absent and len(cells):
        raise ValueError(f"cells: columns {absent} are missing")
    return cells.assign(**dict.fromkeys(absent, pd.Series(dtype=object))).astype(kinds)


def _finished(cells, design):
    runs = cells[(cells["status"] == "done") & np.isfinite(cells["value"])]
    if design.log_x and (runs["x"] <= 0).any():
        raise ValueError(f"x={runs['x'].min():g}: must be greater than 0 where log_x")
    runs = runs.sort_values(["x", *design.nuisance, "seed"], kind="stable", ignore_index=True)
    position = np.log10(runs["x"]) if design.log_x else runs["x"]
    signed = {new: _sign(design) * runs[old] for new, old in _SIGNED.items()}
    return runs.assign(position=position, covariance=0.0, **signed)


def _baselines(cells, design):
    names = cells["method"].unique()
    return [name for name in names if f"{name}_".startswith(f"{design.baseline}_")]


def _pooled(fixed, design):
    """One choice for all seeds of a cell, by validation and by test."""
    by = {VALIDATION: fixed["select"], TEST: fixed["mean"]}
    tables = [
        choices.pooled(fixed, _sign(design) * score).assign(protocol=protocol)
        for protocol, score in by.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _picked(runs, fixed, pooled, nuisance):
    """The runs at chosen values, under each protocol."""
    others = choices.other_seeds(runs, fixed, nuisance).assign(protocol=OTHERS)
    keys = [*CELL, *nuisance]
    same = pooled[[*keys, "protocol"]].merge(runs, on=keys)
    return pd.concat([table for table in (others, same) if len(table)] or [same], ignore_index=True)


def _chosen(picked, pooled, cells, design):
    """`_pooled`, and "other seeds": its runs, at the value that all seeds choose together."""
    others = picked[picked["protocol"] == OTHERS]
    stats = statistics.interval(others, CELL, "value")
    costs = others.groupby(CELL, sort=False)[COSTS].mean().reset_index()
    together = pooled.loc[pooled["protocol"] == VALIDATION, [*CELL, *design.nuisance]]
    together = together.merge(stats, on=CELL).merge(costs, on=CELL).assign(protocol=OTHERS)
    tables = [table for table in (together, pooled) if len(table)] or [pooled]
    chosen = pd.concat(tables, ignore_index=True)
    return chosen.assign(edge=choices.at_edge(chosen, cells, design.nuisance))


def _gains(paired):
    by = [*CELL, "against"]
    keys = [*by, "protocol"]
    gains = statistics.interval(paired, keys, "gain")
    gains = gains.merge(ranks.hodges_lehmann(paired, keys, "gain"), on=keys, how="left")
    honest = gains[gains["protocol"] == OTHERS].set_index(by)["mean"].rename("honest")
    bias = gains["mean"] - gains.join(honest, on=by)["honest"]
    gains = gains.assign(bias=bias.where(gains["protocol"].isin([VALIDATION, TEST])))
    return _with_p(gains, gains["mean"], "p")


def _with_p(table, estimate, name):
    """Adds p and Holm's adjusted p, of the rows to be quoted alone."""
    p = statistics.p_value(estimate, table["sem"], table["freedom"])
    p = pd.Series(p, index=table.index).where(table.index.isin(headline(table).index))
    return table.assign(**{name: p, "p_holm": statistics.holm(p)})


def _trends(paired, gains, design):
    trends = statistics.slopes(paired, PAIR, "gain").drop(columns="p")
    trends = trends.merge(statistics.kendall(gains, PAIR, "mean"), on=PAIR, how="left")
    sign = statistics.excludes_zero(trends["low"], trends["high"])
    trends = trends.assign(verdict=sign.where(trends["sizes"] >= TREND, 0).map(VERDICTS))
    trends = _with_p(trends, trends["slope"], "p_slope")
    trends["sentence"] = [sentences.trend(row, design) for row in trends.itertuples()]
    columns = ["slope", "low", "high", "tau", "p", "n", "sizes", "verdict", "sentence"]
    return trends[[*PAIR, *columns, "sem", "freedom", "p_slope", "p_holm"]]


def _radius(runs, chosen, design):
    """How each axis's best value moves, and of the first (or rho) where each seed's lies."""
    columns = [*radii.BY, "nuisance", "slope", "low", "high", "tau", "p", "n", "sizes", "verdict"]
    tables, shown = [pd.DataFrame(columns=[*columns, "sentence"])], None
    for axis in design.nuisance:
        rows = headline(chosen).dropna(subset=[axis])
        found = radii.bests(runs, rows, design.nuisance, axis)
        if shown is None or axis == "rho":
            shown = found
        moves = radii.moves(found)
        table = statistics.kendall(rows, radii.BY, axis).assign(nuisance=axis)
        groups = rows.groupby(radii.BY, sort=False)
        ends = groups.agg(first=(axis, "first"), last=(axis, "last"), edges=("edge", "sum"))
        ends = ends.assign(values=groups[axis].nunique(), told=groups.size())
        table = table.merge(ends.reset_index(), on=radii.BY)
        kept = ["slope", "low", "high", "n", "sizes", "sure"]
        table = table.merge(moves[[*radii.BY, *kept]], on=radii.BY, how="left")
        table["verdict"] = table["sure"].fillna(0).astype(int).map(VERDICTS)
        table["log"] = bool(found["log"].all())
        table["sentence"] = [sentences.radius(row, design) for row in table.itertuples()]
        table["sizes"] = table["told"]
        tables.append(table[[*columns, "sentence"]])
    tables = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(tables, ignore_index=True), _best_intervals(shown)


def _best_intervals(found):
    """``radii.bests`` with the interval of their mean, in the unit of the axis, within its grid."""
    columns = [*CELL, "seed", "value", "low", "high"]
    if found is None or found.empty:
        return pd.DataFrame(columns=columns)
    ends = statistics.interval(found, CELL, "best")[[*CELL, "low", "high"]]
    found = found.merge(ends, on=CELL)
    for end in ("low", "high"):
        inside = found[end].clip(found["least"], found["most"])
        found[end] = np.where(found["log"], 10.0 ** inside.where(found["log"]), inside)
    return found[columns]


def _worse(picked, design):
    """Baselines that got worse as x grew, by their slope or by their fall from the best size."""
    by = ["panel", "method"]
    table = headline(picked[picked["method"].isin(_baselines(picked, design))])
    found = statistics.slopes(table, by, "score")
    found = found.merge(statistics.peak(table, by, "score"), on=by)
    sinks = statistics.excludes_zero(found["low"], found["high"]) < 0
    sinks &= found["sizes"] >= TREND
    return found.assign(sinks=sinks)[sinks | found["fall_sure"]]


def _bends(paired):
    """Gains that surely rise and surely fall again, or the reverse (``shape`` -1)."""
    quoted = headline(paired)
    both = [quoted.assign(shape=shape, gain=shape * quoted["gain"]) for shape in (1, -1)]
    found = statistics.peak(pd.concat(both), [*PAIR, "shape"], "gain")
    return found[found["rise_sure"] & found["fall_sure"]]


def _sign(design):
    return 1 if design.maximize else -1
