"""What a study says: gains with their errors, trends with their verdicts, and what to distrust.

Pure functions of the table of runs: no disk, no clock. A study that is still running can be
analysed at any time; pairs are formed from what exists, and the warnings say what is missing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from samscale.study import sentences, statistics
from samscale.study.statistics import CELL, PAIR, headline

STATS = ["n", "mean", "sem", "low", "high"]
COSTS = ["seconds", "gradients"]
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
    selection: list[str]  # what choosing on test adds, a sentence for each method


def analyse(cells, design) -> Analysis:
    r"""How the gain over the baseline, and the best radius, change with ``x``.

    gain $= v_{\mathrm{method}} - v_{\mathrm{against}}$ of one seed (losses: the reverse), in the
    unit of ``value``. Nuisance values are chosen per cell by the mean of ``select`` over seeds
    (protocol "validation"), by the mean of ``value`` itself ("test", as the paper does), or not at
    all ("rho=0.05"). A value is a candidate only where it has as many seeds as the best-covered
    one. Without ``select`` there is no "validation" where there is something to choose.

    ``gains.bias``: what choosing on test adds to the mean gain. A lower bound of the optimism:
    luck in training that validation and test examples share stays in both protocols.
    ``trends``: slope per factor of ten of x (per unit of it, without ``log_x``), see
    `statistics.slopes`; tau and p are Kendall's, of the mean gains over sizes. The verdict follows
    the interval of the slope alone: 2.5 % of flat gains are said to grow, 2.5 % to shrink.
    ``radius``: a row per nuisance axis, where there are several.

    Raises:
      ValueError: a column is missing, or ``x`` is not positive while ``log_x``.
    """
    nuisance = list(design.nuisance)
    cells = _complete(cells, nuisance)
    runs = _finished(cells, design)
    fixed = statistics.every_value(runs, nuisance)
    chosen = _choose(fixed, cells, design)
    picked = chosen[[*CELL, *nuisance, "protocol"]].merge(runs, on=[*CELL, *nuisance])
    paired = statistics.pair(runs, picked, nuisance, _baselines(cells, design))
    gains = _gains(paired)
    trends = _trends(paired, gains, design)
    worse = _worse(picked, design)
    return Analysis(
        chosen[[*CELL, "protocol", *nuisance, *STATS, "edge", *COSTS]],
        fixed[[*CELL, *nuisance, *STATS, "select"]],
        paired.drop(columns="position"),
        gains,
        trends,
        _radius(chosen, design),
        [
            *sentences.unfinished(cells),
            *sentences.choices(fixed, chosen, design),
            *sentences.few_seeds(headline(gains)),
            *sentences.bends(_bends(paired), design),
            *(sentences.worse(row, design) for row in worse.itertuples()),
        ],
        sentences.answer(headline(trends), headline(gains), worse, design),
        list(sentences.selection(gains, design)),
    )


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
    return runs.assign(position=position, score=_sign(design) * runs["value"])


def _baselines(cells, design):
    names = cells["method"].unique()
    return [name for name in names if f"{name}_".startswith(f"{design.baseline}_")]


def _choose(fixed, cells, design):
    by = {"validation": fixed["select"], "test": fixed["mean"]}
    tables = [
        statistics.choose(fixed, _sign(design) * score).assign(protocol=protocol)
        for protocol, score in by.items()
    ]
    chosen = pd.concat(tables, ignore_index=True)
    return chosen.assign(edge=statistics.at_edge(chosen, cells, design.nuisance))


def _gains(paired):
    by = [*CELL, "against"]
    gains = statistics.interval(paired, [*by, "protocol"], "gain")
    honest = gains[gains["protocol"] == "validation"].set_index(by)["mean"].rename("honest")
    bias = gains["mean"] - gains.join(honest, on=by)["honest"]
    return gains.assign(bias=bias.where(gains["protocol"] == "test"))


def _trends(paired, gains, design):
    trends = statistics.slopes(paired, PAIR, "gain")
    trends = trends.merge(statistics.kendall(gains, PAIR, "mean"), on=PAIR, how="left")
    sign = statistics.excludes_zero(trends["low"], trends["high"])
    trends = trends.assign(verdict=sign.map(VERDICTS))
    trends["sentence"] = [sentences.trend(row, design) for row in trends.itertuples()]
    columns = ["slope", "low", "high", "tau", "p", "n", "sizes", "verdict", "sentence"]
    return trends[[*PAIR, *columns]]


def _radius(chosen, design):
    by = ["panel", "method"]
    tables = [pd.DataFrame(columns=[*by, "nuisance", "tau", "p", "sizes", "sentence"])]
    for axis in design.nuisance:
        rows = headline(chosen).dropna(subset=[axis])
        table = statistics.kendall(rows, by, axis).assign(nuisance=axis)
        groups = rows.groupby(by, sort=False)
        ends = groups.agg(sizes=("x", "size"), first=(axis, "first"), last=(axis, "last"))
        ends = ends.join(groups[axis].nunique().rename("values"))
        table = table.merge(ends.reset_index(), on=by)
        table["sentence"] = [sentences.radius(row, design) for row in table.itertuples()]
        tables.append(table[[*by, "nuisance", "tau", "p", "sizes", "sentence"]])
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def _worse(picked, design):
    """Baselines that got worse as x grew, by their slope or by their fall from the best size."""
    by = ["panel", "method"]
    table = headline(picked[picked["method"].isin(_baselines(picked, design))])
    found = statistics.slopes(table, by, "score")
    found = found.merge(statistics.peak(table, by, "score"), on=by)
    sinks = statistics.excludes_zero(found["low"], found["high"]) < 0
    return found.assign(sinks=sinks)[sinks | found["fall_sure"]]


def _bends(paired):
    """Gains that surely rise and surely fall again, or the reverse (``shape`` -1)."""
    quoted = headline(paired)
    both = [quoted.assign(shape=shape, gain=shape * quoted["gain"]) for shape in (1, -1)]
    found = statistics.peak(pd.concat(both), [*PAIR, "shape"], "gain")
    return found[found["rise_sure"] & found["fall_sure"]]


def _sign(design):
    return 1 if design.maximize else -1
