"""From a question to a figure: a grid of runs, executed, analysed and reported.

``Study`` and its axes are written down in a file of ``studies/``; ``load(workdir)`` gives every run
of a work folder as a table.
"""

from samscale.study import docstrings
from samscale.study.axes import (
    METHOD,
    SCIENTIFIC,
    Axis,
    methods,
    nuisance,
    repeated,
    scientific,
)
from samscale.study.grid import Cell, Study, cells
from samscale.study.paper import published
from samscale.study.results import load

docstrings.keep()

__all__ = [
    "METHOD",
    "SCIENTIFIC",
    "Axis",
    "Cell",
    "Study",
    "cells",
    "load",
    "methods",
    "nuisance",
    "published",
    "repeated",
    "scientific",
]
