"""Training curves, averaged over seeds and thinned: the page stays small at any number of runs."""

import numpy as np
import pandas as pd

from samscale.study.report import frames

METRICS = {
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "test_loss": "test loss",
    "train_accuracy": "training accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "test_accuracy": "test accuracy (%)",
    "gap": "sharpness gap, L(w + e) - L(w)",
}
ASIDE = ("_se", "_residual", "_converged")  # how well a number is known
MEASURED = "flatness_"  # what runs measured of themselves, at some epochs
POINTS = 12_000  # rows in the page, over all curves


def titles(columns) -> dict[str, str]:
    """A line for each metric among ``columns``, in the order they are shown."""
    found = {name: title for name, title in METRICS.items() if name in columns}
    for name in map(str, columns):
        known = not name.endswith(ASIDE) and name != f"{MEASURED}examples"
        if name.startswith(MEASURED) and known:
            found[name] = name.removeprefix(MEASURED).replace("_", " ")
    return found


def history(study, curves) -> pd.DataFrame:
    """Mean over seeds per (cell, method, epoch) at the chosen nuisance values.

    Columns: cell (panel and size in words), series, epoch, n, and the metrics that exist, those of
    flatness too where a run has them more than once. Each curve keeps its first and last epoch and
    at least 8 of them, and as many at which flatness was measured, fewer where there are many
    measures; all together keep about ``POINTS`` rows, twice at most. Costs one pass over
    ``curves``.
    """
    curves = curves.drop(columns=_once(curves))
    names = list(titles(curves.columns))
    runs = frames.at_chosen(study).sort_values(["panel", "x", "method"], kind="stable")
    if not names or runs.empty or curves.empty:
        return pd.DataFrame(columns=["cell", "series", "epoch", "n", *names])
    cell = runs["size"] + runs["panel"].map(lambda panel: f" · {panel}" if panel else "")
    runs = pd.DataFrame({"run_id": runs["run_id"], "cell": cell, "series": runs["method"]})
    kept = curves[curves["run_id"].isin(set(runs["run_id"]))]
    kept = _thinned(kept, len(runs.drop_duplicates(["cell", "series"])))
    frame = kept[["run_id", "epoch", *names]].merge(runs, on="run_id")
    groups = frame.groupby(["cell", "series", "epoch"], sort=False)
    means = groups[names].mean()
    means["n"] = groups.size()
    for name in names:
        if name.endswith("accuracy"):
            means[name] *= 100
    means = means.dropna(axis="columns", how="all").reset_index()
    order = {name: k for k, name in enumerate(dict.fromkeys(cell))}
    return means.sort_values(
        ["cell", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c
    )


def _once(curves):
    """Of flatness, what no run has twice: a dot is no curve."""
    flat = [name for name in titles(curves.columns) if name.startswith(MEASURED)]
    most = curves.groupby("run_id")[flat].count().max() if flat else {}
    return [name for name in flat if not most[name] > 1]


def _thinned(curves, count):
    room = max(8, POINTS // max(1, count))
    flat = [name for name in titles(curves.columns) if name.startswith(MEASURED)]
    seen = curves["epoch"][curves[flat].notna().any(axis="columns")]
    few = max(8, room * len(METRICS) // max(len(flat), len(METRICS)))
    kept = np.union1d(_picked(curves["epoch"], room), _picked(seen, few))
    return curves[curves["epoch"].isin(kept)]


def _picked(epochs, room):
    """At most ``room`` of them, the first and the last among them."""
    epochs = np.sort(epochs.unique())
    if len(epochs) <= room:
        return epochs
    return epochs[np.unique(np.linspace(0, len(epochs) - 1, room).round().astype(int))]
