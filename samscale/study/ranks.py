r"""Intervals that rest on ranks: one collapsed run moves a mean, and hardly moves these."""

import functools

import numpy as np
import pandas as pd


def hodges_lehmann(table, by, column, level=0.95):
    r"""Per group: the median of all means of two, and the Wilcoxon signed-rank interval.

    With the Walsh averages $(g_i + g_j) / 2,\, i \le j$, sorted: ``middle`` is their median, and
    ``rank_low``, ``rank_high`` are the k-th from either end, with the largest k whose confidence
    $1 - 2 P(T < k)$ is at least ``level``. Fewer than six numbers have no such k: then both are the
    smallest and the largest, and ``rank_level``, $1 - 2^{1 - n}$, says how sure that is. Exact for
    symmetric distributions. Hodges and Lehmann, Annals of Mathematical Statistics 34, 1963.
    """
    table = table[table[column].notna()]
    groups = table.groupby(by, dropna=False, sort=False)
    keys = groups.size()
    number, values = groups.ngroup().to_numpy(), table[column].to_numpy(float)
    values = values[np.argsort(number, kind="stable")]
    sizes, starts = keys.to_numpy(), np.cumsum(keys.to_numpy()) - keys.to_numpy()
    out = np.full((len(keys), 4), np.nan)
    for n in np.unique(sizes):
        same = sizes == n
        rows = values[starts[same][:, None] + np.arange(n)]
        first, second = np.triu_indices(n)
        walsh = np.sort((rows[:, first] + rows[:, second]) / 2, axis=1)
        k, sure = _rank(int(n), level)
        ends = [walsh[:, k], walsh[:, -1 - k]] if n > 1 else [np.full(len(rows), np.nan)] * 2
        out[same] = np.column_stack([np.median(walsh, axis=1), *ends, np.full(len(rows), sure)])
    columns = ["middle", "rank_low", "rank_high", "rank_level"]
    return pd.DataFrame(out, index=keys.index, columns=columns).reset_index()


@functools.cache
def _rank(n, level):
    """The place, from 0, of an interval's end among Walsh averages, and its confidence."""
    if n < 2:
        return 0, np.nan
    ways = np.ones(1)  # of the sum of signed ranks 0, 1, ... where every rank counts or does not
    for rank in range(1, n + 1):
        longer = np.zeros(len(ways) + rank)
        longer[: len(ways)] += ways / 2
        longer[rank:] += ways / 2
        ways = longer
    below = np.cumsum(ways)  # P(T <= k)
    k = max(0, int(np.searchsorted(below, (1 - level) / 2, side="right")) - 1)
    return k, float(1 - 2 * below[k])
