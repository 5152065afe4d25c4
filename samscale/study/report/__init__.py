"""The report of a study: one page that opens offline, figures for a paper, a table.

``frames`` turns results into tidy tables, ``charts`` turns tables into chart specifications,
``figures`` and ``page`` write those to disk. No number is computed after ``frames``.
"""

from samscale.study.report.figures import figure
from samscale.study.report.page import build

__all__ = ["build", "figure"]
