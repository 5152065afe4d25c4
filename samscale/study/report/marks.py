"""What charts are made of: curves with intervals and dots, one style a series, one spec a chart."""

import itertools
import json

import numpy as np

from samscale.study.report import frames
from samscale.study.sentences import FEW

# Okabe and Ito's colours: told apart by colour-blind readers, on white and on dark grey
BASELINES = ["#0072B2", "#56B4E9", "#999999"]
METHODS = ["#D55E00", "#009E73", "#CC79A7", "#E69F00", "#F0E442"]
GREY = "#8C8C8C"
NUMBER = ",.6~g"  # on an axis: left to itself, Vega labels a lone 0.0214 as 0
SOLID, DASHED, DOTTED = [1, 0], [6, 4], [2, 2]


def curves(study, frame, title, *, about, zero=False, shared=True, extra=(), height=300, **y):
    """Lines with points, intervals and seeds over ``x``, a panel beside the other; None if empty.

    ``frame`` has ``frames.COLUMNS``; ``extra`` layers are drawn last, coloured by series; ``y``:
    ``log_y``, and ``ticks`` which are labelled and span the axis.
    """
    if frame.empty:
        return None
    few = frame["n"].astype(float) < FEW
    frame = frame.assign(**{end: frame[end].where(~few) for end in ("low", "high")})
    layers = _layers(study, frame, title, **y)
    x, paint = layers[-1].encoding.x, layers[-1].encoding.color
    layers += [layer.encode(x=x, y=layers[-1].encoding.y, color=paint) for layer in extra]
    if zero:
        layers.insert(0, _zero(title))
    frame, order = frame.assign(facet=frame["panel"]), dict.fromkeys(study.cells["panel"])
    facets = sorted(dict.fromkeys(frame["panel"]), key=[*order, *frame["panel"]].index)
    return spec(layers, frame, about, facets=facets, shared=shared, height=height)


def _layers(study, frame, title, log_y=False, ticks=None):
    """Seeds, intervals, lines and, last and on top, means."""
    series = sorted(dict.fromkeys(frame["series"]), key=lambda s: not _is_baseline(s, study))
    (y, low), (shape, dash) = _y(title, log_y, ticks), _shape_and_dash(study, series)
    x, paint = _x(study, frame), colour(study, series)
    of_seeds, of_means = _tooltips(study, frame)
    seeds = rows().transform_filter("datum.part === 'seed'")
    means = rows().transform_filter("datum.part !== 'seed'")
    ends = means.transform_filter("isValid(datum.low)")
    dots = seeds.mark_point(opacity=0.6, size=16, filled=True)
    points = means.mark_point(opacity=1, size=55, filled=True)
    layers = [
        means.mark_line(strokeWidth=2).encode(x, y, paint, dash),
        points.encode(x, y, paint, shape, tooltip=of_means),
    ]
    if frame["low"].notna().any():  # a layer without rows makes Vega warn
        layers.insert(0, ends.mark_rule(strokeWidth=1.5).encode(x, low, paint, y2="high:Q"))
    if frame["part"].eq("seed").any():
        layers.insert(0, dots.encode(x, y, paint, shape, tooltip=of_seeds))
    return layers


def _tooltips(study, frame):
    import altair as alt

    number = {"format": ".4~g"}
    x = alt.Tooltip("x:Q", title=study.design.x_name, format=",")
    both = [alt.Tooltip("series:N"), alt.Tooltip("size:N"), x]
    seeds = [*both, alt.Tooltip("seed:N"), alt.Tooltip("value:Q", **number)]
    means = [*both, alt.Tooltip("value:Q", title="mean", **number)]
    if frame["n"].notna().any():
        means.append(alt.Tooltip("n:Q"))
    if frame["low"].notna().any():
        means.append(alt.Tooltip("low:Q", title="95 % interval from", **number))
        means.append(alt.Tooltip("high:Q", title="to", **number))
    return seeds, means


def _zero(title):
    import altair as alt

    y = alt.YDatum(0, title=title).axis(grid=True)
    return rows().mark_rule(strokeDash=[3, 3], color=GREY).encode(y=y)


def _y(title, log_y, ticks):
    """The axis of means and seeds, and of the lower ends of intervals."""
    import altair as alt

    scale = {"type": "log", "nice": False, "padding": 8} if log_y else {"zero": False}
    axis = {"grid": True, "format": NUMBER, **({"tickCount": 4} if log_y else {})}
    if ticks:
        scale |= {"padding": 12, "domain": [min(ticks), max(ticks)]}
        axis |= {"values": ticks, "format": "~g", "labelOverlap": len(ticks) > 9, "tickCount": 99}
    names = ("value:Q", "low:Q")
    return tuple(alt.Y(name, title=title).scale(**scale).axis(**axis) for name in names)


def spec(layers, frame, about, *, height, facets=None, shared=True):
    """One chart: layers over the rows of ``frame``, a facet per value of its column "facet".

    The rows travel in ``datasets``, past Altair's validation, whose cost grows with them.
    """
    import altair as alt

    inner = alt.layer(*layers).to_dict()
    for part in (inner, *inner["layer"]):  # a facet divides only what its layers have not claimed
        part.pop("data", None)
    inner.pop("config", None)
    outer = {"$schema": inner.pop("$schema"), "description": about, "data": {"name": "rows"}}
    facets = facets or list(dict.fromkeys(frame["facet"]))
    outer |= {"usermeta": {"facets": len(facets)}, "datasets": {"rows": records(frame)}}
    inner["height"] = height
    if len(facets) < 2:
        return outer | inner
    facet = {"field": "facet", "type": "nominal", "title": None, "sort": facets}
    sides = "shared" if shared else "independent"
    resolve = {"scale": {"y": sides}}
    return outer | {"facet": facet, "columns": 1, "spec": inner, "resolve": resolve}


def rows():
    """What every layer is drawn from: the rows that ``spec`` puts in."""
    import altair as alt

    return alt.Chart(alt.NamedData("rows"))


def colour(study, series):
    """The colour of a method is the same in every chart."""
    import altair as alt

    scale = {"domain": series, "range": [_colours(study, series)[name] for name in series]}
    return alt.Color("series:N", title=None, legend=_legend(series)).scale(**scale)


def records(frame):
    """Rows as JSON knows them: five significant digits, null for NaN."""
    frame = frame.infer_objects()
    for name in frame.select_dtypes("float"):
        frame[name] = significant(frame[name].to_numpy())
    return json.loads(frame.dropna(axis="columns", how="all").to_json(orient="records"))


def significant(values, digits=5):
    """Rounded to ``digits`` significant digits; zero, NaN and infinity pass through."""
    values = np.asarray(values, float)
    usual = np.isfinite(values) & (values != 0)
    power = np.floor(np.log10(np.abs(np.where(usual, values, 1.0))))
    scale = 10.0 ** (digits - 1 - power)
    return np.where(usual, np.round(values * scale) / scale, values)


def _x(study, frame):
    import altair as alt

    design = study.design
    ticks = sorted({float(x) for x in frame.loc[frame["part"] != "paper", "x"]})
    kind = ".3~s" if ticks and ticks[-1] >= 1000 else ".3~g"  # not 772m for 0.772
    axis = {"format": kind, "labelOverlap": True, "tickCount": 5}
    if 0 < len(ticks) <= 8:
        axis["values"] = list(significant(ticks))
    kind = {"type": "log"} if design.log_x else {"zero": False}
    if frame["x"].nunique() == 1:  # else what stands aside of it would span the axis
        kind["domain"] = frames.ends(frame["x"], design.log_x)
    title = design.x_name.replace("_", " ").capitalize()
    return alt.X("at:Q", title=title).scale(**kind, nice=False, padding=14).axis(**axis)


def _legend(series):
    import altair as alt

    narrow = sum(map(len, series)) + 3 * len(series) > 40  # one line of a column of paper
    return alt.Legend(
        orient="top",
        columns=1 if narrow else len(series),
        symbolOpacity=1,
        symbolStrokeWidth=0,
        labelLimit=260,
    )


def _shape_and_dash(study, series):
    import altair as alt

    solid = [frames.series("", study.design.baseline), ""]
    kinds = [
        "paper" if s.startswith("paper") else " over " in s and not s.endswith(solid[0])
        for s in series
    ]
    shapes = {"paper": "triangle-up", False: "circle", True: "diamond"}
    dashes = {"paper": DOTTED, False: SOLID, True: DASHED}
    legend = _legend(series)
    shape = alt.Shape("series:N", title=None, legend=legend)
    dash = alt.StrokeDash("series:N", title=None, legend=legend)
    return (
        shape.scale(domain=series, range=[shapes[kind] for kind in kinds]),
        dash.scale(domain=series, range=[dashes[kind] for kind in kinds]),
    )


def _colours(study, series):
    base = study.design.baseline
    cool, warm = itertools.cycle(BASELINES), itertools.cycle(METHODS)
    methods = sorted(dict.fromkeys(study.cells["method"]), key=lambda name: name != base)
    plain = {name: next(cool if _is_baseline(name, study) else warm) for name in methods}
    found = {}
    for name in series:
        method, _, against = name.removeprefix("paper: ").partition(" over ")
        spare = against not in ("", base) and len(series) <= len(METHODS)
        found[name] = next(warm) if spare else plain.get(method, GREY)
    return found


def _is_baseline(method, study):
    return f"{method}_".startswith(f"{study.design.baseline}_")
