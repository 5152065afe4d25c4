"""What charts are made of: curves with intervals and dots, one style a series, one spec a chart."""

import itertools
import json

import numpy as np

from samscale.study.report import frames

# Okabe and Ito's colours: told apart by colour-blind readers, on white and on dark grey
BASELINES = ["#0072B2", "#56B4E9", "#999999"]
METHODS = ["#D55E00", "#009E73", "#CC79A7", "#E69F00", "#F0E442"]
GREY = "#8C8C8C"
SOLID, DASHED, DOTTED = [1, 0], [6, 4], [2, 2]


def curves(
    study,
    frame,
    title,
    *,
    about,
    zero=False,
    log_y=False,
    ticks=None,
    shared=True,
    extra=(),
    height=300,
):
    """Lines with points, intervals and seeds over ``x``, a panel beside the other; None if empty.

    ``frame`` has ``frames.COLUMNS``; ``extra`` layers are drawn last, coloured by series.
    """
    import altair as alt

    if frame.empty:
        return None
    scale = {"zero": False, **({"type": "log", "nice": False, "padding": 8} if log_y else {})}
    x, y = _x(study, frame), alt.Y("value:Q", title=title).scale(**scale).axis(grid=True)
    low = alt.Y("low:Q", title=title).scale(**scale)
    if ticks:
        y = y.scale(**scale | {"padding": 12, "domain": [min(ticks), max(ticks)]})
        y = y.axis(values=ticks, format="~g")
    series = sorted(dict.fromkeys(frame["series"]), key=lambda s: not _is_baseline(s, study))
    paint, shape, dash = colour(study, series), *_shape_and_dash(study, series)
    tips = [
        alt.Tooltip("series:N"),
        alt.Tooltip("size:N"),
        alt.Tooltip("x:Q", title=study.design.x_name, format=","),
    ]
    number = {"format": ".4~g"}
    seed_tips = [*tips, alt.Tooltip("seed:N"), alt.Tooltip("value:Q", **number)]
    mean_tips = [*tips, alt.Tooltip("value:Q", title="mean", **number), "n:Q"]
    if frame["low"].notna().any():
        ends = {"low": "95 % interval from", "high": "to"}
        mean_tips += [alt.Tooltip(f"{key}:Q", title=name, **number) for key, name in ends.items()]
    seeds = rows().transform_filter("datum.part === 'seed'")
    means = rows().transform_filter("datum.part !== 'seed'")
    ends = means.transform_filter("isValid(datum.low)")
    layers = [
        seeds.mark_point(opacity=0.45, size=16, filled=True).encode(
            x, y, paint, shape, tooltip=seed_tips
        ),
        ends.mark_rule(strokeWidth=1.5).encode(x, low, paint, y2="high:Q"),
        means.mark_line(strokeWidth=2).encode(x, y, paint, dash),
        means.mark_point(size=55, filled=True, opacity=1).encode(
            x, y, paint, shape, tooltip=mean_tips
        ),
        *(layer.encode(x, y, paint) for layer in extra),
    ]
    if zero:
        line = rows().mark_rule(strokeDash=[3, 3], color=GREY)
        layers.insert(0, line.encode(y=alt.YDatum(0, title=title).axis(grid=True)))
    frame = frame.assign(facet=frame["panel"])
    return spec(layers, frame, about, shared=shared, height=height)


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
    facets = list(dict.fromkeys(frame["facet"])) if facets is None else facets
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
    axis = {"format": ".3~s", "labelOverlap": True}
    if 0 < len(ticks) <= 8:
        axis["values"] = list(significant(ticks))
    kind = "log" if design.log_x else "linear"
    title = design.x_name.replace("_", " ").capitalize()
    return (
        alt.X("at:Q", title=title).scale(type=kind, zero=False, nice=False, padding=14).axis(**axis)
    )


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
    dash = alt.StrokeDash("series:N", legend=None)  # dashes would tear the symbols of the legend
    return (
        shape.scale(domain=series, range=[shapes[kind] for kind in kinds]),
        dash.scale(domain=series, range=[dashes[kind] for kind in kinds]),
    )


def _colours(study, series):
    base = study.design.baseline
    cool, warm = itertools.cycle(BASELINES), itertools.cycle(METHODS)
    methods = sorted(set(study.cells["method"]), key=lambda name: (name != base, name))
    plain = {name: next(cool if _is_baseline(name, study) else warm) for name in methods}
    found = {}
    for name in series:
        method, _, against = name.removeprefix("paper: ").partition(" over ")
        other = against and against != base
        found[name] = next(warm) if other else plain.get(method, GREY)
    return found


def _is_baseline(method, study):
    return f"{method}_".startswith(f"{study.design.baseline}_")
