"""From sums and rows to the numbers a run ends with."""

import math
from typing import Any

import numpy as np

from samscale.config import Config
from samscale.tasks import Task


def summary(epochs, task: Task) -> dict[str, Any]:
    """The best epoch by validation with its test value; and, as the paper did, by test itself.

    An epoch whose number is not finite is not the best; without any that is, nothing is found.
    """
    best = max if task.maximize else min
    monitor, found = task.monitor, {}
    by_validation = [row for row in epochs if _is_finite(row, f"validation_{monitor}")]
    if by_validation:
        row = best(by_validation, key=lambda row: row[f"validation_{monitor}"])
        found["best_epoch"] = row["epoch"]
        found[f"best_validation_{monitor}"] = row[f"validation_{monitor}"]
        if f"test_{monitor}" in row:
            found[f"test_{monitor}_at_best_validation"] = row[f"test_{monitor}"]
    by_test = [row[f"test_{monitor}"] for row in epochs if _is_finite(row, f"test_{monitor}")]
    if by_test:
        found[f"best_test_{monitor}"] = best(by_test)
    return found


def _is_finite(row, name) -> bool:
    return name in row and math.isfinite(row[name])


def chance(config: Config, task: Task) -> dict[str, float]:
    r"""What the best constant prediction scores on test: what a run must beat to have learned.

    ``chance_accuracy``: the share $p_c$ of the most frequent class. ``chance_loss``: the entropy
    $-\sum p_c \log p_c$ of the classes for cross entropy, the variance $\sum_j
    \mathrm{Var}\, y_j$ of the targets for squared errors ($1 - \sum p_c^2$ for classes). Only
    what labels tell: of a user's task, whose loss is not known, the accuracy of classes alone.
    """
    if "y" not in task.test or "weight" in task.test or not len(task.test["y"]):
        return {}
    y = np.asarray(task.test["y"])
    loss = "" if config.task else config.loss
    if np.issubdtype(y.dtype, np.integer) and y.ndim == 1:
        share = np.unique(y, return_counts=True)[1] / len(y)
        losses = {"cross_entropy": -(share * np.log(share)).sum(), "squared": 1 - (share**2).sum()}
        found = {"chance_accuracy": float(share.max())}
        return found | ({"chance_loss": float(losses[loss])} if loss in losses else {})
    if loss == "squared":
        return {"chance_loss": float(np.nanvar(y.astype(np.float64), axis=0).sum())}
    return {}


def host_means(sums) -> dict[str, float]:
    """As ``tasks.means``, in the host's float64."""
    count = float(sums["count"]) or 1.0
    return {name: float(value) / count for name, value in sums.items() if name != "count"}


def train_means(sums) -> dict[str, float]:
    """Of what steps report: ``train_loss``, ..., and the gap, where there is one. The norm only
    guards against NaN."""
    gap = {"gap": sums["gap"], "count": sums["compared"]}
    ours = {name: v for name, v in sums.items() if name not in ("gap", "compared", "grad_norm")}
    means = {f"train_{name}": v for name, v in host_means(ours).items()}
    return means | (host_means(gap) if gap["count"] else {})


def last_line(row, monitor):
    percent = lambda v: f"{100 * v:.2f} %" if monitor == "accuracy" else f"{v:.6g}"
    pruned = f" ({100 * row['sparsity']:.4g} % of kernels pruned)" if row["sparsity"] else ""
    parts = [f"{row['num_params']:,} parameters{pruned}, {row['seconds']:.1f} s"]
    if f"test_{monitor}_at_best_validation" in row:
        best = percent(row[f"test_{monitor}_at_best_validation"])
        parts.append(f"test {monitor} {best} at the best validation (epoch {row['best_epoch']})")
    if f"test_{monitor}" in row:
        parts.append(f"final test {monitor} {percent(row[f'test_{monitor}'])}")
    return "; ".join(parts)
