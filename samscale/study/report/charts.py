"""Vega-Lite specifications of all charts, as plain dictionaries.

Widths and the colour of text are left to whoever shows them: ``page.js`` on a screen, ``figures``
on paper. Each function takes a ``frames.Study`` and returns None where there is nothing to draw.
"""

from samscale.study.report import frames, history, marks


def gain(study):
    """What it pays: gain over size, an interval per mean, a dot per seed, a line at no gain."""
    title = frames.unit(study.design).gain
    return marks.curves(study, frames.gain(study), title, zero=True, about="Gain over size")


def absolute(study):
    """The metric of each method over size."""
    title = frames.unit(study.design).value
    return marks.curves(study, frames.absolute(study), title, about="Test metric over size")


def radius(study):
    """The best radius over size; large open triangles stand at an end of the grid."""

    frame, grid = frames.radius(study), frames.heatmap(study)["radius"]
    ticks = sorted({*grid.astype(float), *frame["value"].astype(float)})
    log = bool(ticks) and ticks[0] > 0
    edge = marks.rows().mark_point(shape="triangle-up", size=170, filled=False)
    extra = [edge.transform_filter("datum.edge")] if frame["edge"].any() else []
    title, words = f"Best {frames.axis(study.design)}", {"about": "Best radius over size"}
    return marks.curves(study, frame, title, log_y=log, ticks=ticks, extra=extra, **words)


def heatmap(study):
    """Radius by size: the mean in words, what is lost in colour, the chosen radius outlined."""
    import altair as alt

    frame, unit = frames.heatmap(study), frames.unit(study.design)
    if frame.empty:
        return None
    sizes, radii = (list(dict.fromkeys(frame[name])) for name in ("size", "radius"))
    told = [name for name in ("method", "panel") if frame[name].nunique() > 1]
    frame = frame.assign(facet=_words(frame[told]))
    frame["text"] = [f"{v:#.3g}".rstrip(".") for v in frame["value"]]
    facets = [
        word for word in dict.fromkeys(_words(study.cells[told])) if word in {*frame["facet"]}
    ]
    x = alt.X("size:N", sort=sizes, title="Size (small to large)").axis(
        labelAngle=-35 if sum(map(len, sizes)) > 40 else 0,
        labelOverlap="greedy" if len(sizes) > 12 else False,
    )
    y = alt.Y("radius:O", sort="descending", title=frames.axis(study.design))
    legend = alt.Legend(orient="top", gradientLength=140, gradientThickness=8, titleLimit=300)
    title = f"{unit.short} behind the best of the size"
    colour = alt.Color("below:Q", title=title, legend=legend)
    colour = colour.scale(scheme="viridis", reverse=True)
    tooltip = [
        "size:N",
        "method:N",
        "radius:O",
        alt.Tooltip("value:Q", title=unit.value),
        "below:Q",
    ]
    picked = marks.rows().mark_rect(fillOpacity=0, stroke="#D55E00", strokeWidth=2.5)
    layers = [
        marks.rows().mark_rect().encode(colour, tooltip=tooltip),
        picked.transform_filter("datum.picked"),
    ]
    if len(sizes) <= 8:
        dark = alt.datum.below > float(frame["below"].max()) / 2
        ink = alt.when(dark).then(alt.value("white")).otherwise(alt.value("#222222"))
        layers.append(marks.rows().mark_text().encode(text="text:N", color=ink))
    layers = [layer.encode(x, y) for layer in layers]
    return marks.spec(
        layers, frame, "Mean by radius and size", facets=facets, height=34 * len(radii)
    )


def training(study, curves):
    """Curves of training, one cell at a time: two menus pick the size and the method."""
    import altair as alt

    frame = history.history(study, curves)
    titles = history.titles(frame.columns)
    if not titles or frame.empty:
        return None
    cells, methods = (list(dict.fromkeys(frame[name])) for name in ("cell", "series"))
    labels = list(titles.values())
    tooltip = ["series:N", "epoch:Q", alt.Tooltip("value:Q", format=".4~g"), "n:Q"]
    line = (
        marks.rows()
        .mark_line(strokeWidth=1.5, point={"size": 10})
        .encode(
            alt.X("epoch:Q", title="Epoch").axis(tickMinStep=1),
            alt.Y("value:Q", title=None).scale(zero=False).axis(format=marks.NUMBER),
            marks.colour(study, methods),
            tooltip=tooltip,
        )
    )
    frame = frame.rename(columns=titles)
    spec = marks.spec([line], frame, "Training curves", facets=labels, shared=False, height=170)
    shown = (
        "datum.cell === chosen_size && (chosen_method === 'all' || datum.series === chosen_method)"
    )
    spec["transform"] = [
        {"filter": shown},
        {"fold": labels, "as": ["facet", "value"]},
        {"filter": "isValid(datum.value)"},  # flatness is not measured at every epoch
    ]
    rows = spec["datasets"]["rows"]
    spec["datasets"]["rows"] = [{k: v for k, v in r.items() if v is not None} for r in rows]
    spec["params"] = [
        _menu("chosen_size", cells, cells[-1], "Size"),
        _menu("chosen_method", ["all", *methods], "all", "Method"),
    ]
    return spec


def cost(study):
    """Seconds, gradient evaluations and memory of a run over size."""
    frame = frames.cost_curves(study)
    frame = frame[frame["value"].astype(float) > 0]
    about = "Cost of a run over size"
    return marks.curves(study, frame, None, log_y=True, shared=False, height=170, about=about)


def efficiency(study):
    """Gain per 100 % more gradient evaluations."""
    title = f"{frames.unit(study.design).short} per +100 % compute".capitalize()
    frame = frames.efficiency(study)
    return marks.curves(study, frame, title, zero=True, height=200, about="Gain per extra compute")


def flatness(study):
    """Measures of flatness over size: a dot per seed, a line through the means."""
    frame = frames.flatness(study)
    return marks.curves(study, frame, None, shared=False, height=200, about="Flatness over size")


def _words(columns):
    return [", ".join(words) for words in columns.itertuples(index=False)]


def _menu(name, options, value, label):
    bind = {"input": "select", "options": options, "name": f"{label} "}
    return {"name": name, "value": value, "bind": bind}
