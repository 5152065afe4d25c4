"""From a study's runs to its analysis, report and figures: at any time, also in mid-study."""

import pathlib
import shlex
from typing import Any, NamedTuple

import pandas as pd

from samscale.flatness.remarks import is_of_the_theorem, not_of_the_theorem
from samscale.study import pictures, report, results, store
from samscale.study.analysis import Analysis, Design, analyse
from samscale.study.axes import FIXED, METHOD, NUISANCE
from samscale.study.grid import Study
from samscale.study.grid import cells as grid_cells
from samscale.study.report import frames


class Findings(NamedTuple):
    """A study's tables, and what follows from them."""

    study: Study
    cells: pd.DataFrame
    design: Design
    analysis: Analysis
    info: dict[str, Any]


def find(workdir, name: str) -> Findings:
    """Raises ``ValueError`` where the work folder holds no such study."""
    study, starts = store.load(workdir, name)
    table, design = results.cells(study, workdir), design_of(study)
    info = _info(name, study, starts) | {"warnings": results.damages(table)}
    return Findings(study, table, design, analyse(table, design), info)


def design_of(study: Study) -> Design:
    """What the analysis must know about a study."""
    return Design(
        nuisance=tuple(axis.name for axis in study.role(NUISANCE)),
        baseline=next(iter(study.methods.values)),
        metric=study.metric,
        split=_split(study.value),
        maximize=study.maximize,
        x_name="parameters" if study.x == "num_params" else study.x,
        log_x=study.x == "num_params",
        paper=dict(study.paper),
    )


def publish(workdir, name: str) -> tuple[Findings, pathlib.Path]:
    """Write ``report.html``, figures and ``results.csv`` into the study's folder."""
    found = find(workdir, name)
    place = store.place(workdir, name)
    study = frames.Study(found.cells, found.analysis, found.design, found.info)
    runs = frames.at_chosen(study)
    curves = results.curves(runs, workdir)
    own, warnings = pictures.drawn(found.study, runs, workdir)
    warnings = [*found.info["warnings"], *warnings, *_measured(runs)]
    info = found.info | {"pictures": own, "warnings": warnings}
    info["flatness"] = _of_other_methods(found.study, runs)
    report.build(found.cells, curves, found.analysis, found.design, info, place)
    return found, place / "report.html"


def figure(workdir, name: str, kind: str, path) -> tuple[bool, list[str]]:
    """One figure for a paper; whether there was anything to draw, and what was damaged.

    Raises ``ValueError`` for an unknown kind or format.
    """
    found = find(workdir, name)
    curves = None
    if kind == "training":
        study = frames.Study(found.cells, found.analysis, found.design, found.info)
        curves = results.curves(frames.at_chosen(study), workdir)
    at = found.analysis, found.design, found.info
    return report.figure(found.cells, *at, kind, path, curves), found.info["warnings"]


def _split(value):
    """That a metric is of: "test" also of what it was at the best epoch."""
    first = value.partition("_")[0]
    return first if first in ("train", "validation") else "test"


def _measured(runs):
    """A warning where flatness was not measured in one way."""
    ways = sorted(set(runs["measured"].dropna())) if "measured" in runs else []
    if len(ways) < 2:
        return []
    words = ", of others on ".join(ways)
    return [f"Flatness does not compare: of some runs it was measured on {words}."]


def _of_other_methods(study, runs):
    """A sentence where verdicts of linear stability stand beside runs that they are not about."""
    if "flatness_stable" not in runs:
        return []
    optimizers = {cell.labels[METHOD]: cell.config.optimizer for cell in grid_cells(study)}
    names = [name for name, method in optimizers.items() if not is_of_the_theorem(method)]
    return [not_of_the_theorem(*names)] if names else []


def _environment(found):
    """Of all starts, what differs between them one after another."""
    flat = [{**e, **e.pop("versions", {}), **e.pop("settings", {})} for e in map(dict, found)]
    names = dict.fromkeys(name for e in flat for name in e if name != "command")
    words = lambda v: ", ".join(map(str, v)) if isinstance(v, list) else str(v)
    return {n: "; ".join(dict.fromkeys(words(e[n]) for e in flat if n in e)) for n in names}


def _info(name, study, starts):
    words = {}
    for axis in study.axes:
        only = f" (only {', '.join(axis.only)})" if axis.only else ""
        words[axis.name] = f"{axis.name}, {axis.role}: {', '.join(axis.values)}{only}"
    base = {k: v for k, v in vars(study.base).items() if k not in words and k != "optimizer"}
    return {
        "name": name,
        "question": study.question,
        "paper": dict(study.paper),
        "commands": list(dict.fromkeys(shlex.join(start["command"]) for start in starts)),
        "environment": _environment([start["environment"] for start in starts]),
        "base": base,
        "axes": [*words.values(), f"everything else, {FIXED}: as listed"],
    }
