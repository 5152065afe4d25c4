"""Pictures that a study draws of its own runs, as sections of its report.

A picture is a function ``(runs, workdir) -> Picture | None``. ``runs``: the finished cells at their
chosen nuisance values, a row each with ``run_id``, ``size``, ``x``, ``method``, ``seed`` and
``panel``; None where there is nothing to draw yet.
"""

import json
import pathlib
from typing import Any, NamedTuple

from samscale import named
from samscale.study.grid import Study


class Picture(NamedTuple):
    """A heading, a sentence that says what the chart shows, and an Altair chart."""

    title: str
    note: str
    chart: Any


def check(study: Study) -> None:
    """Raises ``ValueError`` for a name that stands for no function."""
    for name in study.pictures:
        _function(name)


def drawn(study: Study, runs, workdir) -> tuple[list[Picture], list[str]]:
    """Pictures, their charts as ``specification`` gives them, and a warning for each that fails.

    A report is worth having without it.
    """
    found, warnings = [], []
    for name in study.pictures if len(runs) else ():
        try:
            picture = _function(name)(runs, pathlib.Path(workdir))
            if picture is not None:
                title, note, chart = picture
                spec = specification(chart)
                json.dumps(spec, allow_nan=False)
                found.append(Picture(title, note, spec))
        except named.Untrusted:
            warnings.append(f"The picture {name} was left out: --trust runs code of a study's own.")
        except Exception as error:  # of the user's code, whatever it is
            words = " ".join(str(error).split())
            warnings.append(f"The picture {name} was not drawn: {type(error).__name__}: {words}")
    return found, warnings


def left_out(study: Study) -> list[str]:
    """Those that are not drawn where results are only looked at: see ``named.only_ours``."""
    return [name for name in study.pictures if named.is_refused(name)]


def specification(chart) -> dict:
    """What Vega-Lite draws, of any number of rows."""
    import altair as alt

    with alt.data_transformers.enable("default", max_rows=None):
        return chart.to_dict()


def _function(name):
    law = f"pictures={name!r}: must be module:function, giving a samscale.study.pictures.Picture"
    return named.function(law, name)
