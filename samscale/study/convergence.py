"""How fast the training loss falls: a picture that a study may add to its report.

``Study(..., pictures=("samscale.study.convergence:falling",))``.
"""

import math

import numpy as np
import pandas as pd

from samscale.flatness import operators, output_space, rates
from samscale.study import statistics
from samscale.study.pictures import Picture
from samscale.training import measured, record

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
    table = statistics.interval(found, ["size", "method"], "factor")
    table = table.drop(columns=["sem", "freedom"]).rename(columns={"mean": "factor"})
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


def promised(folder) -> tuple[float, float]:
    r"""The factor an epoch that theorem H.3 promises a run at its end, and the largest radius.

    ``rates.bound`` to the power of an epoch's steps, of the Gauss-Newton matrices of all training
    examples where the run ended: the Hessians of a problem that it interpolates, as it must; else
    nothing is promised. NaN beyond that radius, for a rate too large, and for all but plain SGD and
    unnormalized SAM. Dense: for some hundred parameters. Raises as ``measured.load`` does.
    """
    config, task, state = measured.load(folder)
    point = measured.point(config, task, state, examples=0)
    at = point.outputs, point.criterion, point.params, point.data
    each = output_space.blocks(*at)
    norms = np.abs(np.linalg.eigvals(np.asarray(each.gram @ each.bend, np.float64))).max(1)
    beta, lam, alpha = rates.constants(operators.gauss_newton(*at), norms)
    limit = rates.largest_radius(beta, alpha)
    plain = config.optimizer in ("sgd", "usam") and not (config.momentum or config.weight_decay)
    if not plain or point.train_rho > limit:
        return math.nan, limit
    eta, size = config.learning_rate, config.batch_size
    step = rates.bound(beta, lam, alpha, point.train_rho, eta, size)
    return step ** (len(norms) // size) if step < 1 else math.nan, limit


def kept(runs, workdir) -> Picture | None:
    """The factors of runs that interpolate, beside those that theorem H.3 promises at most."""
    import altair as alt

    rows = []
    for run in runs.itertuples():
        found = fitted(runs[runs["run_id"] == run.run_id], workdir)
        if len(found):
            factor, limit = promised(workdir / run.run_id)
            about = {"method": run.method, "seed": run.seed, "measured": found["factor"].item()}
            rows.append({**about, "promised": factor, "limit": limit})
    if not rows:
        return None
    table = pd.DataFrame(rows)
    x = alt.X("method:N", title=None)
    base = alt.Chart(table).encode(x, tooltip=[*table.columns])
    y = alt.Y("measured:Q", title="factor an epoch").scale(zero=False)
    dots = base.mark_point(filled=True).encode(y)
    ticks = base.mark_tick(color="#D55E00", thickness=2).encode(alt.Y("promised:Q"))
    ticks = ticks.transform_filter("isValid(datum.promised)")
    note = (
        "Dots: what the training loss is multiplied by in an epoch, measured. Ticks: what theorem "
        "H.3 promises at most, of beta, lambda and alpha where each run ended. It promises nothing "
        f"to radii above {table['limit'].max():.2g}."
    )
    chart = alt.layer(dots, ticks).properties(width=WIDTH, height=HEIGHT)
    return Picture("Is the promised rate kept?", note, chart)


def _losses(folder):
    rows = [row for row in record.read(folder) if row["kind"] == "epoch"]
    names = {"epoch": "epoch", "loss": "train_loss"}
    return pd.DataFrame({new: [row[old] for row in rows] for new, old in names.items()})
