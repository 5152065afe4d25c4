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
POINTS = 12_000  # rows in the page, over all curves


def history(study, curves) -> pd.DataFrame:
    """Mean over seeds per (cell, method, epoch) at the chosen nuisance values.

    Columns: cell (panel and size in words), series, epoch, n, and the metrics that exist. Each
    curve keeps its first and last epoch and at least 8 of them; all together keep about
    ``POINTS`` rows. Costs one pass over ``curves``.
    """
    names = [name for name in METRICS if name in curves.columns]
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


def _thinned(curves, count):
    epochs = np.sort(curves["epoch"].unique())
    room = max(8, POINTS // max(1, count))
    if len(epochs) <= room:
        return curves
    picks = np.unique(np.linspace(0, len(epochs) - 1, room).round().astype(int))
    return curves[curves["epoch"].isin(epochs[picks])]
