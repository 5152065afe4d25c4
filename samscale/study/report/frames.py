"""The tidy table behind each chart: plain pandas in, plain pandas out, nothing is drawn.

Every curve shares one set of columns, ``COLUMNS``: ``part`` is "seed" (a dot), "mean" (a point of
a line, with its interval where there is one) or "paper"; ``at`` is ``x`` moved aside a little, so
that intervals of different series do not hide each other.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from samscale.study import agreement, statistics

COLUMNS = ["panel", "size", "x", "at", "series", "part", "value", "low", "high", "n", "seed"]
COSTS = {"seconds": "seconds", "gradients": "gradient evaluations", "memory": "memory (MB)"}


class Study(NamedTuple):
    """What all charts are made of; see ``build`` for each part."""

    cells: pd.DataFrame
    analysis: Any
    design: Any
    info: dict


class Unit(NamedTuple):
    """How the metric is written: accuracies in percent, everything else as it is."""

    factor: float
    value: str
    gain: str
    short: str


def unit(design) -> Unit:
    """Of ``design.metric``; gains are differences oriented so that positive is better."""
    split = {"train": "Training"}.get(design.split, design.split.capitalize())
    if design.metric.endswith("accuracy"):
        return Unit(100.0, f"{split} accuracy (%)", "Gain (percentage points)", "points")
    return Unit(1.0, f"{split} {design.metric}", f"Gain ({design.metric})", design.metric)


def headline(table, value) -> pd.DataFrame:
    """Rows with a ``value`` under the protocol that is quoted."""
    return statistics.headline(table.dropna(subset=[value]))


def series(method, against) -> str:
    """The name of a curve of gains."""
    return f"{method} over {against}" + (" (equal compute)" if against.endswith("_2x") else "")


def gain(study) -> pd.DataFrame:
    """Gains over ``x``: a mean with its 95 % interval per series, and every seed."""
    columns = "panel size x method against protocol mean low high n"
    means = headline(_table(study.analysis.gains, columns), "mean")
    seeds = _table(study.analysis.paired, "panel size x method against protocol seed gain")
    seeds = headline(seeds, "gain").rename(columns={"gain": "value"})
    means = means.rename(columns={"mean": "value"})
    frame = _join([means.assign(part="mean"), seeds.assign(part="seed")], ["against", "method"])
    rank = {name: k for k, name in enumerate(dict.fromkeys(study.cells["method"]))}
    order = frame["against"].ne(study.design.baseline)
    frame = frame.assign(order=order, rank=frame["method"].map(rank))
    frame = frame.sort_values(["order", "rank", "against"], kind="stable")
    names = [series(*pair) for pair in zip(frame["method"], frame["against"], strict=True)]
    frame = _join([frame.assign(series=names), _paper(study, {"gain": "paper"})])
    return _scaled(frame, study)


def absolute(study) -> pd.DataFrame:
    """The metric of each method over ``x``, at its chosen nuisance values."""
    columns = "panel size x method protocol mean low high n"
    chosen = headline(_table(study.analysis.chosen, columns), "mean")
    chosen = chosen.rename(columns={"mean": "value"})
    chosen = chosen.assign(series=chosen["method"], part="mean")
    names = {name: f"paper: {name}" for name in dict.fromkeys(chosen["method"])}
    return _scaled(_join([chosen, _paper(study, names)]), study)


def axis(design) -> str | None:
    """The nuisance that stands for "the radius": rho where there is one, else the first."""
    return "rho" if "rho" in design.nuisance else next(iter(design.nuisance), None)


def radius(study) -> pd.DataFrame:
    """The chosen radius of each method over ``x``; ``edge`` marks an end of its grid.

    A dot is one seed's own best; the interval is that of their mean, on the scale of the axis.
    """
    name = axis(study.design)
    if name is None:
        return _join([], ["method", "edge"])
    chosen = _table(study.analysis.chosen, f"panel size x method protocol n edge {name}")
    chosen = headline(chosen, name)
    chosen = chosen.assign(part="mean", value=chosen[name], edge=chosen["edge"].eq(True))
    seeds = _table(study.analysis.bests, "panel size x method seed value low high")
    keys = ["panel", "size", "x", "method"]
    seeds = seeds.astype({"x": float, "low": float, "high": float})
    chosen = chosen.astype({"x": float}).merge(
        seeds.drop_duplicates(keys)[[*keys, "low", "high"]], on=keys, how="left"
    )
    seeds = seeds.drop(columns=["low", "high"]).assign(part="seed", edge=False)
    frame = _join([chosen, seeds], ["method", "edge"])
    frame = frame.assign(series=frame["method"])
    return _dodged(frame.dropna(subset=["x", "value"]), study)


def heatmap(study) -> pd.DataFrame:
    """Mean metric at every fixed radius, the other nuisances at their best; ``picked`` = chosen.

    ``below`` is the distance to the best radius of the same size: what one would lose.
    """
    name, design = axis(study.design), study.design
    keys = ["panel", "method", "size", "x"]
    if name is None:
        return pd.DataFrame(columns=[*keys, "radius", "value", "below", "picked"])
    fixed = _table(study.analysis.fixed, f"panel size x method mean n {name}")
    fixed = fixed.dropna(subset=[name, "mean", "x"]).rename(columns={name: "radius"})
    best = "max" if design.maximize else "min"
    frame = fixed.groupby([*keys, "radius"], sort=False)["mean"].agg(best).reset_index(name="value")
    frame["value"] *= unit(design).factor
    frame["below"] = (frame.groupby(keys)["value"].transform(best) - frame["value"]).abs()
    keys = ["panel", "method", "size", "radius"]
    chosen = radius(study).rename(columns={"value": "radius"})
    chosen = chosen[chosen["part"] == "mean"]
    picked = set(chosen[keys].itertuples(index=False, name=None))
    frame["picked"] = [row in picked for row in frame[keys].itertuples(index=False, name=None)]
    return frame.sort_values(["x", "radius"], kind="stable").reset_index(drop=True)


def costs(study) -> pd.DataFrame:
    """Mean seconds, gradient evaluations and memory a finished run; plus ``extra`` and ``gain``.

    ``extra`` is the gradient evaluations beyond the baseline's, as a fraction of them.
    """
    keys = ["panel", "size", "x", "method"]
    done = study.cells[study.cells["status"] == "done"]
    frame = done.groupby(keys, sort=False)[list(COSTS)].mean().reset_index()
    frame["memory"] = frame["memory"] / 1e6
    base = frame[frame["method"] == study.design.baseline]
    base = base[["panel", "size", "gradients"]].rename(columns={"gradients": "base"})
    frame = frame.merge(base, on=["panel", "size"], how="left")
    frame["extra"] = frame["gradients"] / frame["base"] - 1
    gains = _table(study.analysis.gains, "panel size method against protocol mean")
    gains = headline(gains[gains["against"] == study.design.baseline], "mean")
    gains = gains[["panel", "size", "method", "mean"]].rename(columns={"mean": "gain"})
    frame = frame.merge(gains, on=["panel", "size", "method"], how="left").drop(columns="base")
    frame["gain"] = frame["gain"].astype(float) * unit(study.design).factor
    costly = frame["extra"] > 0.05
    frame["efficiency"] = frame["gain"].where(costly) / frame["extra"].where(costly)
    return frame.sort_values(["panel", "x", "method"], kind="stable").reset_index(drop=True)


def cost_curves(study) -> pd.DataFrame:
    """``costs`` as curves: one panel a kind of cost, averaged over the study's panels."""
    long = costs(study).melt(["size", "x", "method"], list(COSTS), "panel", "value")
    keys = ["panel", "size", "x", "method"]
    long = long.dropna(subset=["x", "value"]).groupby(keys, sort=False)["value"].mean()
    long = long.reset_index().replace({"panel": COSTS})
    return _dodged(_join([long.assign(series=long["method"], part="mean")]), study)


def efficiency(study) -> pd.DataFrame:
    """Gain over the baseline per 100 % more gradient evaluations than the baseline's."""
    frame = costs(study).dropna(subset=["x", "efficiency"])
    frame = frame.assign(series=frame["method"], part="mean", value=frame["efficiency"])
    return _dodged(_join([frame]), study)


def flatness(study) -> pd.DataFrame:
    """Every column ``flatness_*`` at the chosen nuisances: a panel a measure, 95 % intervals."""
    names = [name for name in study.cells.columns if str(name).startswith("flatness_")]
    runs = at_chosen(study).drop(columns="value")
    long = runs.melt(["panel", "size", "x", "method", "seed"], names, "measure", "value")
    long = long.dropna(subset=["x", "value"])
    measure = long["measure"].str.removeprefix("flatness_").str.replace("_", " ")
    long["panel"] = measure + long["panel"].map(lambda panel: f", {panel}" if panel else "")
    long = long.assign(series=long["method"], part="seed")
    keys = ["panel", "size", "x", "method", "series"]
    means = statistics.interval(long, keys, "value").assign(part="mean")
    means = means.drop(columns=["sem", "freedom"]).rename(columns={"mean": "value"})
    return _dodged(_join([means, long]), study)


def at_chosen(study) -> pd.DataFrame:
    """The finished cells whose nuisance values are the chosen ones of their size and method."""
    keys = ["panel", "size", "method", *study.design.nuisance]
    chosen = _table(study.analysis.chosen, " ".join([*keys, "mean", "protocol"]))
    chosen = headline(chosen, "mean")[keys].drop_duplicates()
    done = study.cells[study.cells["status"] == "done"]
    kinds = dict.fromkeys(study.design.nuisance, float)
    return done.astype(kinds).merge(chosen.astype(kinds), on=keys)


def _table(frame, columns):
    """The named columns, NaN where the analysis of an unfinished study has none."""
    return pd.DataFrame(frame).reindex(columns=columns.split())


def _join(frames, more=()):
    """All rows under ``COLUMNS`` and what else they have; no rows give those and ``more``."""
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=[*COLUMNS, *more])
    columns = list(dict.fromkeys([*COLUMNS, *(name for frame in frames for name in frame)]))
    rows = [row for frame in frames for row in frame.to_dict("records")]
    return pd.DataFrame(rows, columns=columns)


def _paper(study, names):
    """Published points with Student's intervals, of as many runs as the paper's means are of.

    A study of several panels gives them a panel each, or gets none.
    """
    paper, panels = study.info.get("paper") or {}, list(dict.fromkeys(study.cells["panel"]))
    rows = []
    for panel in panels:
        own = paper.get(panel, paper if len(panels) == 1 else {})
        n = own.get("n", paper.get("n", agreement.RUNS))
        for key, name in names.items():
            for x, mean, sem in own.get(key, ()):
                low, high = agreement.interval(mean, sem, n)
                point = {"panel": panel, "x": float(x), "value": mean, "series": name, "n": n}
                ends = {"low": low, "high": high, "part": "paper", "size": "published"}
                rows.append({**point, **ends})
    return pd.DataFrame(rows)


def _scaled(frame, study):
    names = ["value", "low", "high"]
    frame[names] = frame[names].astype(float) * unit(study.design).factor
    return _dodged(frame.dropna(subset=["x", "value"]).reset_index(drop=True), study)


def ends(x, log) -> list[float]:
    """Of the axis of ``x``: a lone one stands amid a factor of ten, or amid as much as itself."""
    low, high = float(x.min()), float(x.max())
    if low != high:
        return [low, high]
    if log:
        return [low / 10**0.5, low * 10**0.5]
    half = abs(low) / 2 or 0.5
    return [low - half, low + half]


def _dodged(frame, study):
    """Moves each series aside by up to 2 % of the axis of ``x``, and its seeds a little more.

    All series of a size stay nearer to it than to the next size; published points stay in place.
    """
    log = study.design.log_x
    x = frame["x"].astype(float)
    span = ends(x[x > 0] if log else x, log)
    x, span = (np.log10(x.where(x > 0)), np.log10(span)) if log else (x, span)
    own, seed = frame["part"] != "paper", frame["part"].eq("seed")
    names = list(dict.fromkeys(frame.loc[own, "series"]))
    order = {name: k - (len(names) - 1) / 2 for k, name in enumerate(names)}
    gaps = np.array([np.ptp(span), *np.diff(np.unique(x[own].dropna()))])
    step = min([0.02 * np.ptp(span), *0.6 * gaps / max(1, len(names))])
    at = x + step * (frame["series"].map(order).astype(float).fillna(0) + 0.35 * seed)
    return frame.assign(at=10**at if log else at).dropna(subset="at")
