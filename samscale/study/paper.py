"""What a paper published, beside which a study's own curves are drawn."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from samscale.laws import bare, said


def published(x, source: str = "", n: int | None = None, **series) -> dict[str, Any]:
    """A paper's curves for ``Study.paper``: for "gain" or a method, means at ``x``, or (means,
    standard errors); in the unit of ``value``. ``n``: the runs that a mean is of, 3 unless told."""
    if isinstance(x, str) or not isinstance(x, Iterable):
        raise ValueError(f"x={said(x)}: must be a number for each mean")
    points: dict[str, Any] = {k: v for k, v in {"source": source, "n": bare(n)}.items() if v}
    x = bare(tuple(x))
    for name, means in series.items():
        law = f"{name}: must be a number for each x, or (means, standard errors)"
        pair = bare(means) if isinstance(means, Iterable) else None
        if not isinstance(pair, tuple):
            raise ValueError(f"{law}, not {said(means)}")
        own, errors = pair, (None,) * len(pair)
        if len(pair) == 2 and all(isinstance(part, tuple) for part in pair):
            own, errors = pair
        if not len(x) == len(own) == len(errors):
            raise ValueError(f"{law}: there are {len(x)} x and {len(own)} means")
        points[name] = list(zip(x, own, errors, strict=True))
    return points


def check(paper: Any) -> None:
    """Raises ``ValueError`` for what is not what ``published`` gives, for one panel or for each."""
    if not isinstance(paper, Mapping):
        raise ValueError(f"paper={said(paper)}: must be what published() gives, or absent")
    for name, content in paper.items():
        if name == "source":
            if not isinstance(content, str):
                raise ValueError(f"paper: source={said(content)} must be text")
        elif name == "n":
            if type(content) is not int or content < 1:
                raise ValueError(f"paper: n={said(content)} must be a whole number above 0: runs")
        elif isinstance(content, Mapping):
            if any(isinstance(rows, Mapping) for rows in content.values()):
                raise ValueError(f"paper: {name!r} must be what published() gives for a panel")
            check(content)
        else:
            _check_rows(name, content)


def _check_rows(name, rows):
    law = f"paper: {said(name)} must be rows of x, mean and standard error (or None)"
    if not isinstance(name, str) or not isinstance(rows, tuple | list):
        raise ValueError(f"{law}, as published() gives them, not {said(rows)}")
    for row in rows:
        wide = isinstance(row, tuple | list) and len(row) == 3
        if not wide or not all(map(_is_number, row[: 2 + (row[2] is not None)])):
            raise ValueError(f"{law}, not {said(row)}")


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)
