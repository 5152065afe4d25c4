"""Figures for one column of a two-column paper: 234 points (3.25 inches) wide, text of 7 points."""

import json
import pathlib
import re

from samscale.named import meant
from samscale.study.report import charts
from samscale.study.report.frames import Study
from samscale.training.files import write_atomically

SAVED = ("gain", "absolute", "radius", "heatmap")  # beside every report; the others when asked for
CHARTS = {
    "gain": charts.gain,
    "absolute": charts.absolute,
    "radius": charts.radius,
    "heatmap": charts.heatmap,
    "cost": charts.cost,
    "efficiency": charts.efficiency,
    "flatness": charts.flatness,
}
TRAINING = "training"  # of the largest size: the one that looks at every epoch
KINDS = (*CHARTS, TRAINING)
FORMATS = ("svg", "png", "pdf")
POINT = 0.75  # of a pixel of Vega
WIDTH = 312  # pixels, 234 points
FONT = {"labelFontSize": 9.5, "titleFontSize": 10, "titleFontWeight": "normal"}
CONFIG = {
    "background": "white",
    "font": "Helvetica, Arial, sans-serif",
    "padding": 2,
    "axis": {**FONT, "gridOpacity": 0.5, "tickSize": 3, "titlePadding": 4},
    "legend": {**FONT, "symbolSize": 30, "rowPadding": 0, "offset": 4},
    "header": {"labelFontSize": 10, "labelPadding": 3},
    "text": {"fontSize": 9.5},
    "view": {"stroke": None},
}
NOTHING = {
    "mark": {"type": "text", "text": "Nothing to draw yet: no finished runs to compare."},
    "data": {"values": [{}]},
    "height": 40,
}


def figure(cells, analysis, design, study_info, kind, path, curves=None) -> bool:
    """Write one figure, whole or not at all; the suffix of ``path`` is its format.

    A study without finished runs to compare gives a figure that says so, and False. About 0.2 s,
    and 1 s more for the first of a process. Raises ``ValueError`` for an unknown kind or format,
    and ``OSError`` where ``path`` cannot be written.
    """
    if kind not in KINDS:
        choices = ", ".join(sorted(KINDS))
        raise ValueError(f"kind={kind!r}: choose one of {choices}{meant(kind, KINDS)}")
    path = pathlib.Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(
            f"path={str(path)!r}: the suffix must be one of {', '.join(sorted(FORMATS))}"
        )
    study = Study(cells, analysis, design, study_info)
    spec = charts.training(study, curves) if kind == TRAINING else CHARTS[kind](study)
    write_atomically(path, convert(on_paper(spec or NOTHING), suffix))
    return bool(spec)


def on_paper(spec) -> str:
    """A specification as an SVG exactly ``WIDTH`` wide: drawn, measured, and drawn to measure."""
    import vl_convert

    inner = dict(spec.get("spec", spec))
    inner |= {"width": WIDTH - 60, "height": max(40, round(0.6 * inner["height"]))}
    for _ in range(3):
        sized = {**spec, "spec": inner} if "spec" in spec else {**spec, **inner}
        sized = {**sized, "config": CONFIG}
        svg = vl_convert.vegalite_to_svg(json.dumps(sized))
        missing = WIDTH - _width(svg)
        if missing == 0:
            break
        inner["width"] = max(60, inner["width"] + missing)
    return svg


def as_drawn(spec) -> str:
    """A picture of a study's own: at the size that it was given."""
    import vl_convert

    return vl_convert.vegalite_to_svg(json.dumps(spec))


def convert(svg, suffix) -> bytes:
    """The bytes of an SVG, a PNG of 300 dots per inch, or a PDF, all ``POINT * WIDTH`` wide."""
    import vl_convert

    if suffix == "png":
        return vl_convert.svg_to_png(svg, scale=POINT, ppi=300)
    if suffix == "pdf":  # which takes a number without a unit for points
        return vl_convert.svg_to_pdf(_resized(svg, ""))
    return _resized(svg, "pt").encode()


def _resized(svg, unit):
    def size(match):
        before, width, height = match.groups()
        numbers = f'width="{POINT * int(width):g}{unit}" height="{POINT * int(height):g}{unit}"'
        return before + numbers

    return re.sub(r'(<svg .*?)width="(\d+)" height="(\d+)"', size, svg, count=1)


def _width(svg):
    return int(re.search(r' width="(\d+)"', svg)[1])
