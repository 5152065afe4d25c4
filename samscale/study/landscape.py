"""Pictures of the loss around runs, and between them: tables first, then Altair charts of them."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from samscale import keys, pruning
from samscale.flatness import estimates, landscape, operators, paths
from samscale.training import measured, program, snapshots

CELLS, MARGIN = 31, 0.2  # points a side of a plane; what is shown beyond the paths
HEIGHT, WIDTH, LABEL = 260, 300, 420  # of a chart, and its longest label, in pixels
BANDS = 12  # of equal log loss
MATCHED = "straight, units matched"
AS_THEY_ARE = f"{MATCHED} (they match as they are)"
STROKES = ["#56B4E9", "#D55E00", "#F0E442", "#CC79A7", "#FFFFFF"]


class Walk(NamedTuple):
    """A run's way from its initialization (epoch 0) to its checkpoint, as far as it was kept."""

    name: str
    epochs: list[int]
    params: list[Any]
    point: Any  # where it stands, and the loss there


def walk(folder, examples: int = 1000, seed: int = 0) -> Walk:
    """Raises ``ValueError`` where there is no run, ``OSError`` where it is damaged."""
    folder = pathlib.Path(folder)
    config, task, state = measured.load(folder)
    point = measured.point(config, task, state, examples, seed)
    first = pruning.apply(state.mask, program.initial(config, task, config.seed)[0])
    first = jax.device_get(first)
    per_epoch = len(next(iter(task.train.values()))) // config.batch_size
    last = -(-int(state.step) // per_epoch)
    before = [epoch for epoch in snapshots.epochs(folder) if epoch < last]  # a kill may leave later
    kept = {epoch: snapshots.load(folder, epoch, first) for epoch in before}
    kept = {0: first} | kept | {last: jax.device_get(state.params)}
    return Walk(folder.resolve().name, sorted(kept), [kept[epoch] for epoch in sorted(kept)], point)


def trajectories(walks, cells: int = CELLS) -> tuple[pd.DataFrame, pd.DataFrame, float]:
    """The loss on the plane that holds most of the ways, the ways on it, and the share it holds.

    Tables (x, y, loss) and (x, y, run, epoch); the loss is the first run's, the origin its end.
    Raises ``ValueError`` where networks differ, or their ways span no plane.
    """
    origin, point = walks[0].params[-1], walks[0].point
    for other in walks[1:]:
        landscape.alike(f"{other.name}, as {walks[0].name}: ", other.params[-1], origin)
    _check_masks(walks)
    found = landscape.principal_plane([p for w in walks for p in w.params], origin)
    where = pd.DataFrame(found.coordinates, columns=["x", "y"])
    where["run"] = [w.name for w in walks for _ in w.epochs]
    where["epoch"] = [epoch for w in walks for epoch in w.epochs]
    sides = []
    for name in ("x", "y"):
        low, high = where[name].min(), where[name].max()
        sides.append(np.linspace(low - MARGIN * (high - low), high + MARGIN * (high - low), cells))
    heights = landscape.plane(point.losses, origin, found.directions, point.data, *sides)
    return _grid(*sides, heights), where, float(found.fractions[:2].sum())


def around(point, key, reach: float = 1.0, cells: int = CELLS) -> pd.DataFrame:
    """The loss (x, y, loss) on a plane through the point, along two random directions.

    Their filters are as long as the point's (Li et al., 2018), so 1 is as far as its weights reach.
    """
    drawn = [landscape.direction(k, point.params) for k in jax.random.split(key)]
    drawn = [pruning.apply(point.mask, d) for d in drawn]
    directions = [landscape.filter_normalized(d, point.params) for d in drawn]
    side = np.linspace(-reach, reach, cells)
    return _grid(
        side,
        side,
        landscape.plane(point.losses, point.params, directions, point.data, side, side),
    )


def density(point, key, steps: int = 60, probes: int = 3) -> pd.DataFrame:
    """Of the Hessian's eigenvalues (eigenvalue, density), smoothed over 1 % of their range."""
    found = estimates.spectrum(
        operators.hessian(point.losses, point.params, point.data), key, steps, probes
    )
    low, high = found.nodes.min(), found.nodes.max()
    width = 0.01 * (high - low)
    grid = np.linspace(low - 5 * width, high + 5 * width, 400)
    return pd.DataFrame({"eigenvalue": grid, "density": found.density(grid, width)})


def between(first: Walk, second: Walk, points: int = 25, curve_steps: int = 0, key=None):
    """The loss on ways between two ends (way, t, loss), and the barrier of the straight ones.

    Straight; for MLPs also with hidden units permuted to match; with ``curve_steps`` also along a
    quadratic Bezier curve trained for that many. Units take their pruned weights, which are 0, with
    them: on that way no weight is masked. Units that match as they are leave one straight way, and
    its barrier stands for both. Raises ``ValueError`` where networks differ, or are pruned
    otherwise, or an MLP's numbers are not finite.
    """
    (losses, data), at = (first.point.losses, first.point.data), np.linspace(0, 1, points)
    a, b = first.params[-1], second.params[-1]
    landscape.alike(f"{second.name}: ", b, a)
    _check_masks([first, second])
    ways = {"straight": (losses, b)}
    matched = paths.aligned(a, b) if paths.is_mlp(a) else None
    as_they_are = matched is not None and _same(b, matched)
    if matched is not None and not as_they_are:
        ways[MATCHED] = (measured.unmasked(losses), matched)
    rows, barriers = [], {}
    for way, (losses, end) in ways.items():
        rows.append((way, paths.interpolation(losses, a, end, data, at)))
        barriers[way] = float(paths.barrier(losses, a, end, data, at))
    if as_they_are:
        barriers[AS_THEY_ARE] = barriers["straight"]
    if curve_steps:
        losses = first.point.losses
        middle = paths.bezier(losses, a, b, data, key, curve_steps)
        along = paths.along_bezier(losses, a, middle, b, data, at)
        rows.append(("Bezier curve", along))
        line = (1 - at) * float(along[0]) + at * float(along[-1])
        barriers["Bezier curve"] = float((np.asarray(along) - line).max())
    tables = [pd.DataFrame({"way": way, "t": at, "loss": np.asarray(v)}) for way, v in rows]
    return pd.concat(tables, ignore_index=True), barriers


def _same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def _check_masks(walks):
    first = walks[0].point.mask
    for other in walks[1:]:
        mask = other.point.mask
        alike = jax.tree.structure(mask) == jax.tree.structure(first)
        if not alike or not _same(mask, first):
            raise ValueError(f"{other.name}: must be pruned as {walks[0].name} is, to share a loss")


def plane_chart(grid, title: str, walked=None, names=("first direction", "second direction")):
    """Bands of equal log loss; the ways of runs above them, a diamond at each end."""
    import altair as alt

    floor = max(float(grid["loss"].min()), float(grid["loss"].max()) * 1e-8, 1e-30)
    cells, axes = grid.assign(level=np.log10(np.maximum(grid["loss"], floor))), {}
    for name, axis, words in zip("xy", (alt.X, alt.Y), names, strict=True):
        half = 0.505 * np.diff(np.unique(grid[name]))[0]  # a hair more, or gaps would shine through
        cells[f"{name}1"], cells[f"{name}2"] = grid[name] - half, grid[name] + half
        domain = [float(grid[name].min()), float(grid[name].max())]
        axes[name] = axis(f"{name}1:Q", title=words).scale(domain=domain, nice=False)
    scheme = alt.SchemeParams(name="viridis", count=BANDS)
    scale = alt.Scale(type="quantize", scheme=scheme, reverse=True)
    level = alt.Color("level:Q", title="log10 loss", scale=scale)
    rects = alt.Chart(cells).mark_rect(clip=True).encode(**axes, color=level, x2="x2", y2="y2")
    if walked is None:
        walked = pd.DataFrame({"x": [0.0], "y": [0.0], "run": [""], "epoch": [0]})
    runs = list(dict.fromkeys(walked["run"]))
    legend = alt.Legend(orient="bottom", columns=1, labelLimit=LABEL) if runs != [""] else None
    scale = alt.Scale(domain=runs, range=STROKES if runs != [""] else STROKES[-1:])
    where = [
        alt.X("x:Q"),
        alt.Y("y:Q"),
        alt.Stroke("run:N", title=None, legend=legend, scale=scale),
    ]
    ways = alt.Chart(walked).encode(*where, order="epoch:Q", tooltip=["run:N", "epoch:Q"])
    ends = walked[walked["epoch"] == walked.groupby("run")["epoch"].transform("max")]
    end = alt.Chart(ends).mark_point(size=120, shape="diamond", strokeWidth=2).encode(*where)
    layers = [rects, ways.mark_line(strokeWidth=2), ways.mark_point(size=18), end]
    return _titled(alt.layer(*layers), title)


def density_chart(table, title: str):
    """A logarithmic axis: outliers hold a part in thousands."""
    import altair as alt

    floor = table["density"].max() * 1e-7
    table = table.assign(density=np.maximum(table["density"], floor))
    y = alt.Y("density:Q", title="density of eigenvalues").scale(type="log")
    y = y.axis(format="~e", tickCount=4)
    x = alt.X("eigenvalue:Q", title="eigenvalue of the Hessian")
    return _titled(alt.Chart(table).mark_line().encode(x, y), title)


def between_chart(table, title: str):
    import altair as alt

    x = alt.X("t:Q", title="from the first run (0) to the second (1)")
    y = alt.Y("loss:Q", title="training loss")
    ways = list(dict.fromkeys(table["way"]))
    legend = alt.Legend(orient="bottom", columns=1, labelLimit=LABEL)
    scale = alt.Scale(domain=ways, range=STROKES)
    colour = alt.Color("way:N", title=None, legend=legend, scale=scale)
    return _titled(alt.Chart(table).mark_line(point=True).encode(x, y, colour), title)


def _titled(chart, title):
    return chart.properties(title=title, width=WIDTH, height=HEIGHT)


def key(seed: int):
    """Of random directions and probes."""
    return keys.address(seed, keys.MEASURE, 2)


def _grid(first, second, heights):
    x, y = np.meshgrid(first, second, indexing="ij")
    columns = {"x": x.ravel(), "y": y.ravel(), "loss": np.asarray(heights, float).ravel()}
    return pd.DataFrame(columns)
