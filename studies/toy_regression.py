"""What do SGD and SAM make of twelve points on a line? A ReLU network of growing width.

samscale study studies/toy_regression.py --workdir=runs

Section 4.1 of Shin et al., 2025 (arXiv:2311.17539; figures 2 and 3), after Andriushchenko and
Flammarion, 2022: one hidden layer, batches of 6 random points, SAM at 0.2. Rates and lengths are
ours, the paper tells none: 0.03 / neurons, about a third of 2 / a with the sharpness a at
initialization, falling linearly to zero; 400,000 steps. ``bend`` is the total variation of the
slope between x = -1.4 and 1.5, 0 for a line. The report has the solutions and the ways on the loss.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from samscale import tasks
from samscale.config import Config
from samscale.study import Study, landscape, methods, repeated, scientific
from samscale.study.pictures import Picture
from samscale.training import measured

X = ((np.arange(12) - 5.5) / 4 + 0.07).astype(np.float32)
Y = (0.345 + np.array([-2, 1.5, 0, 0, 2, 1, 0, -1, 0, 1, 2, -1])).astype(np.float32)
COPIES = 1000  # of the points in an epoch: a batch of 6 is then nearly a draw with replacement
GRID, STEP = np.linspace(-1.4, 1.5, 1000, dtype=np.float32), 2.9 / 999


class OneHiddenLayer(nn.Module):
    """Kinks in a row: slopes of 2.5 either way, no bias at the output."""

    num_neurons: int

    @nn.compact
    def __call__(self, x, train=False):  # (n, 1) -> (n, 1)
        del train
        signs = lambda key, shape, dtype: 2.5 * jax.random.rademacher(key, shape, dtype)
        bias, out = nn.initializers.normal(2.5), nn.initializers.normal(4.0)
        x = nn.Dense(self.num_neurons, kernel_init=signs, bias_init=bias)(x)
        return nn.Dense(1, use_bias=False, kernel_init=out)(nn.relu(x))


def get_task(config):
    model = OneHiddenLayer(config.num_neurons[0])
    points = {"x": np.tile(X[:, None], (COPIES, 1)), "y": np.tile(Y[:, None], (COPIES, 1))}
    few = {"x": X[:, None], "y": Y[:, None]}
    grid = {"x": GRID[:, None], "y": np.full((len(GRID), 1), np.nan, np.float32)}
    init, squared = tasks.supervised(model, tasks.squared, few)
    outputs = tasks.predictor(model)

    def loss(params, stats, batch, key, train):
        sums, stats = squared(params, stats, batch, key, train)
        if train:
            return sums, stats
        at = lambda x: outputs(params, stats, {"x": x})[:, 0]
        second = at(batch["x"] - STEP) - 2 * at(batch["x"]) + at(batch["x"] + STEP)
        weight = batch.get("weight", jnp.ones(len(batch["x"])))
        bend = (weight * jnp.abs(second)).sum() * len(GRID) / STEP
        return {**sums, "bend": bend, "count": weight.sum()}, stats

    return tasks.Task(
        points, few, grid, init, loss, monitor="loss", maximize=False, outputs=outputs
    )


BASE = Config(
    task="samscale.studies.toy_regression:get_task",
    num_epochs=200,
    batch_size=6,
    momentum=0.0,
    weight_decay=0.0,
    lr_scheduler="linear",
    rho=0.2,
    snapshot_every=10,
)


def get_study():
    return Study(
        question="Does SAM fit twelve points more simply than SGD where the network is wider?",
        base=BASE,
        axes=(
            scientific("neurons", {m: rate(m) for m in (5, 10, 100, 1000)}),
            methods(BASE, "sgd", "sam"),
            repeated("seed", [1, 2, 3]),
        ),
        metric="bend",
        maximize=False,
        select="validation_loss",
        pictures=(
            "samscale.studies.toy_regression:solutions",
            "samscale.studies.toy_regression:ways",
        ),
    )


def rate(neurons):
    """The sharpness at initialization is about 21 for each neuron."""
    return {"num_neurons": (neurons,), "learning_rate": 0.03 / neurons}


def solutions(runs, workdir):
    """Figure 2: what each seed's network makes of the points."""
    import altair as alt

    tables = []
    for row in runs.itertuples():
        _, task, state = measured.load(workdir / row.run_id)
        y = task.outputs(state.params, state.stats, {"x": GRID[::5, None]})[:, 0]
        about = {"neurons": int(row.size), "method": row.method, "seed": row.seed}
        tables.append(pd.DataFrame({"x": GRID[::5], "y": np.asarray(y), **about}))
    lines = alt.Chart().mark_line(clip=True, strokeWidth=1.5)
    y = alt.Y("y:Q").scale(domain=[-3, 4])
    lines = lines.encode(alt.X("x:Q"), y, alt.Color("seed:N"))
    points = alt.Chart(pd.DataFrame({"x": X, "y": Y})).mark_point(color="#888888", filled=True)
    layers = alt.layer(lines, points.encode(x="x:Q", y="y:Q"), data=pd.concat(tables))
    layers = layers.properties(width=170, height=130)
    chart = layers.facet(column=alt.Column("neurons:O"), row=alt.Row("method:N", sort=["sgd"]))
    return Picture("Solutions", "A line is one seed's network; dots are the points.", chart)


def ways(runs, workdir):
    """Figure 3: the ways of SGD and SAM from one initialization, on the loss."""
    import altair as alt

    charts, seed = [], runs["seed"].min()
    for _, pair in runs[runs["seed"] == seed].groupby("x"):
        if len(pair) == 2:
            pair = pair.sort_values("method", ascending=False)
            walks = [landscape.walk(workdir / run, 120) for run in pair["run_id"]]
            walks = [w._replace(name=m) for w, m in zip(walks, pair["method"], strict=True)]
            grid, walked, share = landscape.trajectories(walks)
            title = f"{pair['size'].iloc[0]} neurons: {100 * share:.0f} % of the ways"
            charts.append(landscape.plane_chart(grid, title, walked, ("", "")))
    if not charts:
        return None
    note = (
        "The plane through the ends that holds most of both ways, of the first seed; diamonds are "
        "the ends. The paper's has two ways of SGD from one initialization; here a seed is both."
    )
    chart = alt.concat(*charts, columns=2).resolve_scale(color="independent", stroke="shared")
    return Picture("Ways on the loss", note, chart)
