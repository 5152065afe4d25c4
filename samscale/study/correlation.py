r"""Does flatness predict accuracy? Rank correlations of what runs measured with how they scored.

Tables in, tables out. Two questions are kept apart, for their answers differ: whether runs of one
method that end flatter are better (*within methods*), and whether methods that end flatter are
better (*between methods*). Each is asked over all sizes and within a size, and each again at
matched training loss, for a network that fits less is often flatter *and* worse.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

PREFIX = "flatness_"
COLUMNS = [
    *("measure", "comparison", "scope", "n", "rho", "p", "p_adjusted"),
    *("rho_given_loss", "p_given_loss", "p_given_loss_adjusted", "least_p"),
]
WITHIN, BETWEEN = "within methods", "between methods"
OVER, INSIDE = "over sizes", "within a size"
EXACT, DRAWS = 5040, 5000  # permutations up to which all are taken, else so many drawn
LEVEL = 0.05


class Kind(NamedTuple):
    """How runs, of axes (panel, config, size, seed), are compared."""

    comparison: str
    scope: str
    ranked: tuple[int, ...]  # axes along which runs are ranked together
    unit: int  # the axis whose entries are exchanged, all others with it


KINDS = (
    Kind(WITHIN, OVER, ranked=(2, 3), unit=2),
    Kind(WITHIN, INSIDE, ranked=(3,), unit=3),
    Kind(BETWEEN, OVER, ranked=(1, 2), unit=1),
    Kind(BETWEEN, INSIDE, ranked=(1,), unit=1),
)


def flatness_correlation(
    cells, nuisance=(), value="value", loss="train_loss", maximize=True, seed=0
) -> pd.DataFrame:
    r"""Spearman's rank correlation of every column ``flatness_*`` with ``value``, in ``COLUMNS``.

    A row per measure and kind of comparison. Within each stratum both are ranked, and centred ranks
    are correlated over all strata together. *Within methods* a stratum is a method at one value of
    its ``nuisance`` axes, with its runs of all sizes and seeds or of one size; *between methods* it
    is all methods (each nuisance value counts as one), by means over seeds, of all sizes or of
    one. Positive: larger numbers go with better scores, whether ``maximize`` or not. ``n``: runs,
    or means of runs, in all. ``rho_given_loss``: the partial correlation given the ranks of
    ``loss``: of what is left of both after a straight line through centred ranks of the loss; NaN
    where nothing is left.

    p: of a permutation test that exchanges whole units, for what they share is no independent
    evidence: the sizes, with all methods and seeds; the seeds, with all methods and sizes; the
    methods, with all sizes. All permutations are taken up to ``EXACT``, else ``DRAWS`` of them.
    ``least_p``: the smallest p that so few units allow; above 0.05 nothing can be told. Given the
    loss, what is left is exchanged, which is exact only for many units. ``p_adjusted``: over the
    measures of a kind, by Benjamini and Hochberg, 1995.

    Args:
      cells: a row per run: panel, size, method, seed, the nuisance columns, ``value``, ``loss``
        (where there is none, nothing is matched) and measures. Runs that are not done, if there is
        a ``status``, do not count, nor methods that lack a run that another has, measure by
        measure.
    """
    rows = []
    for measure in (name for name in cells.columns if str(name).startswith(PREFIX)):
        table, left_out = _arrays(cells, measure, nuisance, value, loss)
        if table is None:
            continue
        x, y, z = table
        for kind in KINDS:
            found = _correlated(kind, x, y if maximize else -y, z, seed)
            if found is not None:
                about = {"measure": measure.removeprefix(PREFIX), "left_out": left_out}
                rows.append(about | {"comparison": kind.comparison, "scope": kind.scope} | found)
    table = pd.DataFrame(rows, columns=[*COLUMNS, "left_out"])
    groups = table.groupby(["comparison", "scope"], sort=False)
    for name in ("p", "p_given_loss"):
        table[f"{name}_adjusted"] = groups[name].transform(_adjusted).astype(float)
    return table


def sentences(table, metric: str) -> list[str]:
    """What a table of ``flatness_correlation`` says, a sentence for each kind of comparison."""
    found = []
    for (comparison, scope), rows in table.groupby(["comparison", "scope"], sort=False):
        least = rows["least_p"].min()
        where = f"{comparison.capitalize()}, {scope}"
        if not least <= LEVEL:
            few = f"there are too few {_units(comparison, scope)} to tell"
            found.append(f"{where}, {few}: their permutations give no p below {least:.2g}.")
            continue
        text = f"{where}, {_told(rows, 'rho', 'p_adjusted')} of {len(rows)} measures go with"
        text = f"{text} {metric} beyond chance"
        if rows["rho_given_loss"].notna().any():
            matched = _told(rows, "rho_given_loss", "p_given_loss_adjusted")
            text = f"{text}; at matched training loss, {matched}"
        found.append(f"{text}.")
    lost = int(table["left_out"].max()) if len(table) else 0
    if lost:
        found.append(f"{lost} methods or radii lack runs that others have, and are left out.")
    return found


def _units(comparison, scope):
    if comparison == BETWEEN:
        return "methods"
    return "sizes" if scope == OVER else "seeds"


def _told(rows, rho, p):
    """How many measures are beyond chance, with up to four of their names and correlations."""
    sure = rows[rows[p] <= LEVEL].sort_values(rho, key=np.abs, ascending=False)
    names = [f"{row.measure} {getattr(row, rho):+.2f}" for row in sure[:4].itertuples()]
    more = ", ..." if len(sure) > 4 else ""
    return f"{len(sure)} ({', '.join(names)}{more})" if len(sure) else "none"


def _arrays(cells, measure, nuisance, value, loss):
    """(x, y, z), each (panels, configs, sizes, seeds), and how many configs are left out."""
    done = cells[cells["status"] == "done"] if "status" in cells else cells
    matched = loss in done and done[loss].notna().any()
    names = [measure, value, *([loss] if matched else [])]
    done = done[np.isfinite(done[names].astype(float)).all(axis=1)]
    axes = ["panel", "config", "size", "seed"]
    done = done.assign(config=_configs(done, nuisance)).drop_duplicates(axes)
    runs = done.groupby("config", sort=False).size()
    if not len(runs):
        return None, 0
    whole = runs.index[runs == runs.max()]
    kept = done[done["config"].isin(whole)]
    places = [pd.factorize(kept[name], sort=True)[0] for name in axes]
    shape = tuple(place.max() + 1 for place in places)
    if math.prod(shape) != len(kept):  # not one run in every place
        return None, 0
    arrays = []
    for name in (measure, value, loss):
        array = np.zeros(shape)
        if name in names:
            array[tuple(places)] = kept[name].astype(float)
        arrays.append(array)
    return arrays, len(runs) - len(whole)


def _configs(done, nuisance):
    """A method at one value of each of its nuisance axes, as a name."""
    parts = [done["method"].astype(str)]
    parts += [done[name].map(lambda v: "" if v != v else f" {v:g}") for name in nuisance]
    return sum(parts[1:], start=parts[0])


def _correlated(kind, x, y, z, seed):
    """rho, p and the same given the loss, of one kind of comparison; None where nothing varies."""
    if kind.comparison == BETWEEN:
        x, y, z = (a.mean(3, keepdims=True) for a in (x, y, z))
    units = x.shape[kind.unit]
    x, y, z = (_ranks(a, kind.ranked) for a in (x, y, z))
    permutations, least = _permutations(units, seed)
    rho, p = _tested(kind, x, y, permutations)
    if units < 2 or math.isnan(rho):
        return None
    given, p_given = math.nan, math.nan
    if (z**2).sum() > 0:
        given, p_given = _tested(kind, _without(x, z), _without(y, z), permutations)
    found = {"n": x.size, "rho": rho, "p": p, "least_p": least}
    return found | {"rho_given_loss": given, "p_given_loss": p_given}


def _ranks(a, axes):
    """Centred ranks within the strata that ``axes`` span; ties share their mean."""
    rest = [axis for axis in range(a.ndim) if axis not in axes]
    order = [*rest, *axes]
    moved = a.transpose(order)
    flat = moved.reshape(*(a.shape[axis] for axis in rest), -1)
    ranks = stats.rankdata(flat, axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    return ranks.reshape(moved.shape).transpose(np.argsort(order))


def _without(a, z):
    """What a straight line through ``z`` leaves of ``a``; zeros where that is rounding."""
    left = a - z * (a * z).sum() / (z**2).sum()
    return left if (left**2).sum() > 1e-9 * (a**2).sum() else np.zeros_like(a)


@functools.lru_cache(maxsize=8)
def _permutations(units, seed):
    """(draws, units): the first leaves all in place; and the least p that they allow."""
    total = math.factorial(units)
    if total <= EXACT:
        every = np.array(list(itertools.permutations(range(units))))
        return every, 1 / total
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(np.arange(units), (DRAWS, 1)), axis=-1)
    drawn[0] = np.arange(units)
    return drawn, 1 / DRAWS


def _tested(kind, x, y, permutations):
    """The correlation, and the share of permutations with one as large in absolute value."""
    scale = math.sqrt((x**2).sum() * (y**2).sum())
    if scale == 0:
        return math.nan, math.nan
    x, y = (np.moveaxis(a, kind.unit, 0).reshape(a.shape[kind.unit], -1) for a in (x, y))
    products = x @ y.T / scale  # of what unit i measured with what unit j scored
    sums = products[np.arange(len(products)), permutations].sum(-1)
    return float(sums[0]), float((np.abs(sums) >= abs(sums[0]) - 1e-9).mean())


def _adjusted(p):
    """By Benjamini and Hochberg; what is not known stays so, and does not count."""
    known = p.notna()
    found = p.astype(float).copy()
    if known.any():
        found[known] = stats.false_discovery_control(p[known].astype(float))
    return found
