"""Reports of simulated studies, for tests to look at."""

import itertools

import numpy as np
import pandas as pd

from samscale.study.analysis import Design, analyse
from samscale.study.report import build

DESIGN = Design(nuisance=("rho",))
INFO = {
    "name": "widths",
    "question": "Does SAM help more as networks grow?",
    "commands": ["samscale study widths.py --workdir=runs"],
    "environment": {"jax": "0.10.2"},
    "base": {"dataset": "digits"},
    "axes": ["num_neurons: 3 values"],
    "paper": {"gain": [(3e3, 0.002, 0.001), (3e5, 0.008, 0.001)], "source": "Figure 2"},
    "warnings": ["Twenty epochs, where the paper has 100."],
}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'\\ & ${x}"


def simulated(widths=(10, 100, 1000), rhos=(0.05, 0.1, 0.2), seeds=4, panels=("",)):
    """Cells and curves: 1 point more for SAM with every factor of ten in width."""
    rng, rows = np.random.default_rng(0), []
    for panel, width, method in itertools.product(panels, widths, ("sgd", "sgd_2x", "sam")):
        for rho, seed in itertools.product(rhos if method == "sam" else (np.nan,), range(seeds)):
            gain = 0.01 * np.log10(width) - abs(rho - 0.1) / 10 if method == "sam" else 0.0
            value = 0.9 + gain + rng.normal(0, 0.001)
            cell = {"panel": panel, "size": f"[{width}]", "x": 50.0 * width, "method": method}
            cell |= {"rho": rho, "seed": seed, "select": value, "value": value, "status": "done"}
            cell |= {"reason": "", "run_id": f"run-{len(rows)}", "num_params": 50.0 * width}
            cost = 1 if method == "sgd" else 2
            rows.append({**cell, "seconds": 3.0 * cost, "gradients": 1e3 * cost, "memory": np.nan})
    cells = pd.DataFrame(rows)
    epochs = pd.DataFrame({"epoch": range(1, 6)})
    curves = cells[["run_id", "value"]].merge(epochs, how="cross")
    curves = curves.assign(train_loss=1 / curves["epoch"], test_accuracy=curves.pop("value"))
    return cells, curves


def built(out, cells, curves, design=DESIGN, info=INFO):
    build(cells, curves, analyse(cells, design), design, info, out)
    return (out / "report.html").read_text(encoding="utf-8")


def hostile(out):
    cells, curves = simulated(widths=(10, 100), panels=("", HOSTILE))
    cells["size"] += HOSTILE
    cells["method"] = cells["method"].replace("sam", HOSTILE)
    cells["reason"] = HOSTILE
    info = {key: HOSTILE for key in ("name", "question")}
    info |= {"commands": [HOSTILE + "\udcff"], "axes": [HOSTILE], "warnings": [HOSTILE]}
    info |= {"environment": {HOSTILE: HOSTILE}, "base": {HOSTILE: HOSTILE}}
    return built(out, cells, curves, info=info)
