"""How fast the training loss falls: a picture that a study may add to its report.

``Study(..., pictures=("samscale.study.convergence:falling",))``.
"""

import numpy as np
import pandas as pd
from scipy import stats

from samscale.flatness import rates
from samscale.study.pictures import Picture
from samscale.training import record

START = 0.25  # of a run's epochs that are left out of the fit
WIDTH, HEIGHT = 280, 200


def fitted(runs, workdir, start: float = START) -> pd.DataFrame:
    """The linear rate of each run's training loss: ``factor`` per epoch and ``fit``, its R^2.

    Fitted to log losses after the share ``start`` of the epochs. A run with fewer than three such
    epochs, or without a finite loss above 0 in one, is left out.
    """
    rows = []
    for run in runs.itertuples():
        losses = _losses(workdir / run.run_id)["loss"].to_numpy()
        losses = losses[int(start * len(losses)) :]
        if len(losses) > 2 and (np.isfinite(losses) & (losses > 0)).all():
            rate = rates.fitted(losses)
            about = {"size": run.size, "x": run.x, "method": run.method, "seed": run.seed}
            rows.append({**about, "factor": rate.factor, "fit": rate.fit})
    return pd.DataFrame(rows)


def falling(runs, workdir) -> Picture | None:
    """Training losses over epochs, and the factor that each is multiplied by in an epoch."""
    import altair as alt

    panel = runs["panel"].map(lambda panel: f", {panel}" if panel else "")
    runs = runs.assign(size=runs["size"] + panel)
    found = fitted(runs, workdir)
    if found.empty:
        return None
    curves = [
        _losses(workdir / run.run_id).assign(size=run.size, method=run.method, seed=run.seed)
        for run in runs.itertuples()
    ]
    keys = ["size", "method", "epoch"]
    mean = lambda losses: np.exp(np.log(losses.clip(lower=1e-30)).mean())
    curves = pd.concat(curves).groupby(keys, sort=False)["loss"].agg(mean).reset_index()
    sizes = list(dict.fromkeys(runs.sort_values("x")["size"]))
    methods = list(dict.fromkeys(runs["method"]))
    colour = alt.Color("method:N", title=None, sort=methods).legend(orient="top")
    y = alt.Y("loss:Q", title="training loss").scale(type="log").axis(format="~g", tickCount=4)
    lines = (
        alt.Chart(curves).mark_line().encode(alt.X("epoch:Q"), y, colour, tooltip=[*keys, "loss"])
    )
    lines = lines.properties(width=WIDTH, height=HEIGHT)
    lines = lines.facet(alt.Facet("size:N", title=None, sort=sizes), columns=2)
    groups = found.groupby(["size", "method"], sort=False)["factor"]
    table = groups.agg(factor="mean", n="size", sem="sem").reset_index()
    half = table.pop("sem") * stats.t.ppf(0.975, (table["n"] - 1).clip(lower=1))
    table = table.assign(low=table["factor"] - half, high=table["factor"] + half)
    dots = alt.Chart(table).encode(
        alt.X("method:N", title=None, sort=methods), alt.Color("method:N", sort=methods)
    )
    factor = alt.Y("factor:Q", title="factor an epoch").scale(zero=False)
    bars = dots.mark_rule().encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    points = dots.mark_point(filled=True, size=60).encode(factor, tooltip=[*table.columns])
    rate = alt.layer(bars, points).properties(width=WIDTH, height=HEIGHT)
    rate = rate.facet(alt.Facet("size:N", title=None, sort=sizes), columns=2)
    worst = found["fit"].min()
    note = (
        "Geometric means over seeds. Below: what the loss is multiplied by in an epoch, from a "
        f"straight line through its logarithm after the first {START:.0%} of the epochs: mean over "
        f"seeds with a 95 % interval. R^2 is at least {worst:.3f}."
    )
    chart = alt.vconcat(lines, rate).resolve_scale(color="shared")
    return Picture("How fast does the training loss fall?", note, chart)


def _losses(folder):
    rows = [row for row in record.read(folder) if row["kind"] == "epoch"]
    names = {"epoch": "epoch", "loss": "train_loss"}
    return pd.DataFrame({new: [row[old] for row in rows] for new, old in names.items()})
