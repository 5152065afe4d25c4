r"""What a study of this size can tell: smallest effects, and the seeds that an effect needs.

An estimate with standard error s and f degrees of freedom is told from zero where it lies beyond
$t_{0.975, f}\, s$. With a true effect d, estimate / s follows a noncentral t distribution with
noncentrality $\delta = d / s$, so the power is $P(|T_{f, \delta}| > t_{0.975, f})$.
Pure functions; effects and errors share one unit.
"""

import bisect

import numpy as np
import pandas as pd
from scipy.special import nctdtr, nctdtrinc

from samscale.study.statistics import PAIR, headline, quantile
from samscale.study.wording import amount, count, sentence, unit_of_x
from samscale.training.progress import clock

POWER = 0.8  # probability of telling an effect that is there
MOST = 10_000  # seeds that are still worth naming
COLUMNS = [*PAIR, "size", "x", "effect", "sem", "freedom", "n", "detectable", "needed"]


def power(effect, sem, freedom, level=0.95):
    """Probability that an interval of ``level`` around an estimate of ``effect`` excludes zero."""
    t, ratio = quantile(freedom, level), np.abs(effect) / sem
    return 1 - nctdtr(freedom, ratio, t) + nctdtr(freedom, ratio, -t)


def detectable(sem, freedom, wanted=POWER, level=0.95):
    """The smallest effect that is told with probability ``wanted``; NaN without freedom."""
    return nctdtrinc(freedom, 1 - wanted, quantile(freedom, level)) * sem


def seeds(effect, sem, freedom, n, wanted=POWER) -> float:
    r"""The fewest seeds that tell ``effect`` with probability ``wanted``, from the spread of n.

    With n' seeds the error is $s \sqrt{n / n'}$ and the freedom $f (n' - 1) / (n - 1)$. NaN where
    the spread is unknown; infinity beyond ``MOST``.
    """
    if not (n > 1 and freedom > 0 and sem > 0 and np.isfinite(effect)):
        return np.nan

    def told(number):
        """Whether so many seeds tell the effect: once they do, more do."""
        error, degrees = sem * np.sqrt(n / number), freedom * (number - 1) / (n - 1)
        return bool(detectable(error, degrees, wanted) <= abs(effect))

    if not told(MOST):
        return np.inf
    return float(2 + bisect.bisect_left(range(2, MOST), True, key=told))


def table(gains: pd.DataFrame, trends: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row for each quoted gain over the baseline at the largest size, and for each slope.

    ``size`` and ``x`` are empty of a slope. ``effect``: the one that was seen; ``needed``: the
    seeds that would tell it. Columns are ``COLUMNS``.
    """
    gains, trends = (headline(found) for found in (gains, trends))
    ends = gains[gains["x"] == gains.groupby(["panel", "method"])["x"].transform("max")]
    rows = [
        *_rows(ends[ends["against"] == baseline], "mean"),
        *_rows(trends[trends["against"] == baseline], "slope"),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def seconds_of_a_seed(cells: pd.DataFrame) -> float:
    """What another seed of the whole study costs, from the runs that have finished."""
    done = cells[cells["status"] == "done"]
    return done["seconds"].sum() / max(1, done["seed"].nunique())


def sentences(able, seconds, design):
    """The smallest gain and slope that these seeds can tell, and what the ones seen would need.

    ``able``: `table`; ``seconds``: of a seed more.
    """
    for (panel, method), rows in able.groupby(["panel", "method"], sort=False):
        told, needed, most = [], [], 0.0
        for row in rows[rows["detectable"].notna()].itertuples():
            slope = "" if row.size else f" per {unit_of_x(design)}"
            what = f"a gain at {row.size}" if row.size else "a slope"
            told.append(f"{what} of {amount(row.detectable, design, sign='')}{slope}")
            number = f"{row.needed:,.0f}" if np.isfinite(row.needed) else "over 10,000"
            needed.append(f"{amount(row.effect, design)}{slope} needs {number}")
            most = max(most, row.needed - row.n)
        if not told:
            continue
        n = int(rows["n"].max())
        over = f"{method} over {design.baseline}"
        text = f"{count(n, 'seed')} can tell, with 80 % power, {' and '.join(told)} of {over}"
        text += f"; what was seen: {', '.join(needed)} seeds in all"
        if 0 < most < np.inf:
            text += f", {clock(most * seconds)} more of training"
        yield sentence(panel, text)


def sentences_of(able, size, seconds, design):
    """What these seeds, and how many, would tell of a gain of ``size`` in the unit of the metric.

    ``able``: `table`; ``seconds``: of a seed more.
    """
    for row in able[able["size"] != ""].itertuples():
        if not row.sem > 0:
            continue
        now = power(size, row.sem, row.freedom)
        needed = seeds(size, row.sem, row.freedom, row.n)
        what = f"a gain of {amount(size, design, sign='')} of {row.method} at {row.size}"
        text = f"{count(row.n, 'seed')} would tell {what} with {100 * now:.0f} % power"
        more = needed - row.n
        number = f"{needed:,.0f} seeds" if np.isfinite(needed) else "over 10,000 seeds"
        text += f"; 80 % needs {number}"
        if 0 < more < np.inf:
            text += f", {clock(more * seconds)} more of training"
        yield sentence(row.panel, text)


def _rows(found, effect):
    for row in found.to_dict("records"):
        spread = row["sem"], row["freedom"]
        yield {
            **{name: row[name] for name in PAIR},
            "size": row.get("size", ""),
            "x": row.get("x", np.nan),
            "effect": row[effect],
            "sem": row["sem"],
            "freedom": row["freedom"],
            "n": row["n"],
            "detectable": float(detectable(*spread)) if row["sem"] > 0 else np.nan,
            "needed": seeds(row[effect], *spread, row["n"]),
        }
