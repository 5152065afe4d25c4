"""From sums and rows to the numbers a run ends with."""

import math
from typing import Any

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
