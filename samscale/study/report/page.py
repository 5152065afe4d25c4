"""The page of a study: one file that opens without a network, beside its figures and its table."""

import html
import importlib.resources
import json
import pathlib
import re
import string
from typing import NamedTuple

from samscale.study import correlation
from samscale.study.report import charts, figures, frames, tables, vega
from samscale.study.sentences import FEW
from samscale.study.tables import csv
from samscale.training.files import write_atomically


class Section(NamedTuple):
    """A heading, what the chart below it shows in one sentence, and tables of numbers.

    It is left out where its chart cannot be drawn; without a chart, where it has no tables.
    """

    title: str
    note: str
    chart: str = ""
    tables: tuple = ()


def build(cells, curves, analysis, design, study_info, out_dir) -> None:
    """Write ``report.html``, ``figures/`` and ``results.csv``, each whole or not at all.

    Args:
      cells: a row per run. ``results.csv`` holds them, formulas made inert.
      curves: a row per run and epoch: run_id, epoch and metrics.
      analysis: what ``analyse(cells, design)`` returned.
      study_info: name, question, commands, environment, base, axes, warnings, pictures of the
        study's own, and published
        results: ``paper = {"gain" or a method: [(x, mean, sem), ...], "source": str}``, in the
        unit of ``value``. A study of several panels gives one such dictionary per panel.

    Works at any time of a study; what cannot be drawn yet is left out. The first page of a machine
    takes 2 s longer (see ``vega``). Raises ``OSError`` where ``out_dir`` cannot be written.
    """
    study = frames.Study(cells, analysis, design, study_info)
    out_dir = pathlib.Path(out_dir)
    (out_dir / "figures").mkdir(parents=True, exist_ok=True)
    specs = {kind: draw(study) for kind, draw in figures.CHARTS.items()}
    specs |= {figures.TRAINING: charts.training(study, curves)}
    own = {name: picture.chart for name, picture in _own(study)}
    for kind, spec in ({kind: specs[kind] for kind in figures.SAVED} | own).items():
        svg = None
        if spec:
            svg = figures.as_drawn(spec) if kind in own else figures.on_paper(spec)
        for suffix in figures.FORMATS if svg else ():
            path = out_dir / "figures" / f"{kind}.{suffix}"
            write_atomically(path, figures.convert(svg, suffix))
    write_atomically(out_dir / "results.csv", csv(cells).encode(errors="backslashreplace"))
    specs |= {name: spec | {"usermeta": {"own": True}} for name, spec in own.items()}
    write_atomically(out_dir / "report.html", _page(study, specs).encode(errors="backslashreplace"))


def _page(study, specs):
    info, specs = study.info, {name: spec for name, spec in specs.items() if spec}
    data = {"charts": specs, "table": tables.runs(study)}
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    warnings = [*study.analysis.warnings, *info.get("warnings", ())]
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(f"{info['name']}: {info.get('question', '')}"),
        name=html.escape(info["name"]),
        question=html.escape(info.get("question") or info["name"]),
        progress=html.escape(_progress(study.cells)),
        warnings=_warnings(warnings),
        answer=_answer(study.analysis.answer),
        sections="\n".join(_section(section, study, specs) for section in _sections(study, specs)),
        reproduce=tables.reproduce(info),
        style=_asset("page.css"),
        script=_asset("page.js"),
        vega=vega.script(),
        data=text,
    )


def _own(study):
    """Names and pictures of the study's own."""
    return [(f"picture-{i + 1}", own) for i, own in enumerate(study.info.get("pictures", ()))]


def _sections(study, specs):
    """In the order of the questions a reader asks: does it pay, where from, at what price."""
    unit, base, words = frames.unit(study.design), study.design.baseline, tables.protocol(study)
    radius, x = frames.axis(study.design), study.design.x_name
    bars = {kind: _bars(spec) for kind, spec in specs.items()}
    dots = "A dot is one seed; a point is their mean,"
    yield Section(
        f"Does it pay more with more {x}?",
        "Above the dashed line, the method named first is better. "
        f"{dots} {bars.get('gain')}. {words}",
        "gain",
        (
            tables.plain(study.analysis.selection),
            tables.sentences(study.analysis.trends, study.analysis.answer),
            tables.plain(study.analysis.notes),
            tables.gains(study),
            tables.agreement(study),
        ),
    )
    yield Section(
        f"{unit.value.removesuffix(' (%)')} of each method",
        f"A point is a mean over seeds, {bars.get('absolute')}. {words}",
        "absolute",
    )
    yield Section(
        f"Which {radius} is best?",
        "A dot is one seed's own best, a point the value that all seeds choose together, "
        f"{bars.get('radius')}. The interval is that of where the seeds' own best lie. {words} A "
        "triangle marks a winner at the end of its grid: the best value may lie beyond.",
        "radius",
        (tables.sentences(study.analysis.radius),),
    )
    yield Section(
        f"What does the wrong {radius} cost?",
        "Numbers are means over seeds; colour is the distance to the best of the same size. "
        f"Outlined: the chosen one. {words}",
        "heatmap",
    )
    yield Section(
        "Training curves",
        "Means over seeds at the chosen values; pick a size and a method.",
        "training",
    )
    for name, picture in _own(study):
        yield Section(picture.title, picture.note, name)
    flatness = " ".join([f"{dots} {bars.get('flatness')}.", *study.info.get("flatness", ())])
    yield Section("Flatness at the end of training", flatness, "flatness")
    yield _prediction(study)
    yield Section(
        "What does it cost?",
        "Means of the finished runs, whatever their nuisance values.",
        "cost",
        (tables.costs(study),),
    )
    yield Section(
        "Gain per extra compute",
        f"Gain over {base}, divided by the additional gradient evaluations: {unit.short} for "
        "every 100 % more.",
        "efficiency",
    )


def _prediction(study):
    """Whether flatness predicts the metric: words and numbers, without a chart."""
    design, name = study.design, frames.unit(study.design).value.removesuffix(" (%)").lower()
    table = correlation.flatness_correlation(study.cells, design.nuisance, maximize=design.maximize)
    numbers = (tables.plain(correlation.sentences(table, name)), tables.correlations(table))
    note = (
        "Spearman's rank correlations of each measure with the score of finished runs; positive: "
        "larger numbers go with better scores. Matched: what a line through the ranks of the "
        "training loss leaves. p: of exchanging whole sizes, seeds or methods."
    )
    return Section(f"Does flatness predict {name}?", note, "", numbers if len(table) else ())


def _section(section, study, specs):
    shown = section.chart in specs if section.chart else any(section.tables)
    if not shown:
        return ""
    saved = {*figures.SAVED, *dict(_own(study))}
    links = "".join(
        f' <a href="figures/{section.chart}.{suffix}">{suffix.upper()}</a>'
        for suffix in (figures.FORMATS if section.chart in saved else ())
    )
    paper = f'<p class="note">For a paper:{links}</p>' if links else ""
    name = section.chart or "words"
    chart = f'<div class="chart" id="{name}"></div>' if section.chart else ""
    note = section.note + _published(study, specs.get(section.chart, {}))
    return (
        f'<section id="{name}-section"><h2>{html.escape(section.title)}</h2>'
        f'<p class="note">{html.escape(note)}</p>{chart}'
        f"{paper}{''.join(section.tables)}</section>"
    )


def _bars(spec):
    """What the means of a chart have beside them."""
    means = [row for row in _rows(spec) if row.get("part") == "mean"]
    told = [row.get("low") is not None for row in means]
    if not any(told):
        return f"without an interval: none is drawn below {FEW} seeds"
    return "its bar a 95 % interval" + ("" if all(told) else f", drawn from {FEW} seeds on")


def _rows(spec):
    return spec.get("datasets", {}).get("rows", ())


def _published(study, spec):
    shown = any(row.get("part") == "paper" for row in _rows(spec))
    source = (study.info.get("paper") or {}).get("source", "")
    bars = any(r.get("part") == "paper" and r.get("low") is not None for r in _rows(spec))
    words = ", their bars 95 % intervals from the standard errors and runs told" if bars else ""
    return f" Dotted: published results{f' ({source})' if source else ''}{words}." if shown else ""


def _warnings(sentences):
    if not sentences:
        return ""
    items = [f"<li>{html.escape(sentence)}</li>" for sentence in dict.fromkeys(sentences)]
    more = ""
    if len(items) > 4:
        rest = f"<ul>{''.join(items[3:])}</ul>"
        more = f"<details><summary>{len(items) - 3} more warnings</summary>{rest}</details>"
        items = items[:3]
    title = "<strong>Read this before you believe the charts</strong>"
    return f'<div class="warnings">{title}<ul>{"".join(items)}</ul>{more}</div>'


def _answer(text):
    """The first sentence in large type, what follows in small."""
    first, *rest = re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)
    more = "".join(f'<p class="more">{html.escape(part)}</p>' for part in rest)
    return f'<p class="answer">{html.escape(first)}</p>{more}'


def _progress(cells):
    counts = cells["status"].value_counts()
    parts = [f"{counts.get('done', 0):,} of {len(cells):,} runs finished"]
    parts += [f"{counts[name]:,} {name}" for name in ("failed", "missing") if name in counts]
    return ", ".join(parts) + "."


def _asset(name):
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
