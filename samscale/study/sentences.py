"""What the tables of `analysis` say, in words: verdicts, warnings, the answer.

Accuracies are told in percentage points, anything else in its own unit; two digits are enough.
"""

import numpy as np

from samscale.study import statistics

VERBS = {"grows": "grows", "shrinks": "shrinks", "no evidence": "changes"}
TWO = "it needs two sizes"
FEW = 3  # seeds: below, an interval is so wide that it tells nothing, and is not drawn


def trend(row, design):
    """A row of ``trends``: "The gain of sam over sgd grows with parameters: ..., on 10 seeds."."""
    gain = f"the gain of {row.method} over {row.against}{_protocol(row, design)}"
    if not row.n:
        return _start(row.panel, f"nothing can be said yet of how {gain} changes: {TWO}")
    claim = _claim(row, gain, design)
    slope = f"{_amount(row.slope, design)} per {_step(design)}"
    slope = f"{slope} ({_interval(row.low, row.high, design)})"
    rank = f", Kendall's tau {row.tau:+.2f} (p = {row.p:.2g})" if row.tau == row.tau else ""
    seeds = "" if row.n < FEW else f", on {_count(row.n, 'seed')}"
    return _start(row.panel, f"{claim}: {slope}{rank}{seeds}")


def radius(row, design):
    """A row of ``radius``: how the best nuisance value moves over sizes."""
    best = f"the best {row.nuisance} of {row.method}"
    if row.sizes < 2:
        return _start(row.panel, f"nothing can be said yet of how {best} changes: {TWO}")
    if row.values == 1:
        return _start(row.panel, f"{best} is {row.first:g} at each of {row.sizes} sizes")
    tau = f"Kendall's tau {row.tau:+.2f}, p = {row.p:.2g}, {row.sizes} sizes"
    if not row.p < 0.05:
        claim = f"there is no evidence that {best} changes with {design.x_name}"
        return _start(row.panel, f"{claim} ({tau})")
    verb = "grows" if row.tau > 0 else "shrinks"
    moves = f"{row.first:g} at the smallest size, {row.last:g} at the largest"
    return _start(row.panel, f"{best} {verb} with {design.x_name}: {moves} ({tau})")


def answer(trends, gains, worse, design):
    """One or two sentences for the whole study, from the rows to be quoted."""
    first = trends[trends["against"] == design.baseline]
    if not len(first):
        return f"Nothing can be said yet: no run has finished beside one of {design.baseline}."
    if len(first) > 1:
        return _tally(first, worse, design)
    row = next(first.itertuples())
    sunk = (worse["panel"] == row.panel) & (worse["method"] == design.baseline)
    caution = f", while {design.baseline} itself got worse" if sunk.any() else ""
    gains = gains[(gains["panel"] == row.panel) & (gains["method"] == row.method)]
    ends = gains[gains["x"] == gains["x"].max()]
    sizes = " and ".join(
        f"{_amount(end.mean, design)} over {end.against} ({_interval(end.low, end.high, design)})"
        for end in ends.itertuples()
    )
    last = f"At the largest size, {ends['size'].iloc[0]}, it is {sizes}."
    return f"{row.sentence[:-1]}{caution}. {last}"


def selection(gains, design):
    """What choosing on the reported data, as papers do, adds to the gains over the baseline."""
    told = gains[(gains["protocol"] == "test") & (gains["against"] == design.baseline)]
    for (panel, method), rows in told.dropna(subset=["bias"]).groupby(["panel", "method"]):
        if not design.nuisance or not len(rows):
            continue
        mean, bias = rows["mean"].mean(), rows["bias"].mean()
        over = f"the mean gain of {method} over {design.baseline}"
        numbers = f"{_amount(mean, design)} instead of {_amount(mean - bias, design)}"
        names = " and ".join(design.nuisance)
        text = f"with {names} chosen on {design.split}, as papers do, {over} would be {numbers}"
        yield _start(panel, f"{text}: selection adds {_amount(bias, design)}")


def unfinished(cells):
    """Warnings: runs that failed (or ended without a finite value) and runs that are missing."""
    failed = cells["status"] == "failed"
    failed |= (cells["status"] == "done") & ~np.isfinite(cells["value"])
    for run in cells[failed][:1].itertuples():
        why = run.reason or "its value is not finite"
        yield (
            f"{_share(failed)} runs failed ({_by_method(cells[failed])}), for instance "
            f"{run.method} at {run.size}: {why}. Gains rest on the others."
        )
    missing = cells["status"] == "missing"
    if missing.any():
        yield f"{_share(missing)} runs are missing ({_by_method(cells[missing])})."


def choices(fixed, chosen, design):
    """Warnings: values not compared for want of seeds, chosen on test data, or at an edge."""
    uneven = fixed[~statistics.candidates(fixed)]
    for (panel, method), rows in uneven.groupby(["panel", "method"], sort=False):
        kinds = f"values of {_axes(rows, design)} for {method}"
        text = f"{kinds} with fewer finished seeds than others could not be chosen"
        yield _start(panel, f"at {_count(rows['size'].nunique(), 'size')}, {text}")
    by = ["panel", "size", "method"]
    honest = chosen[chosen["protocol"] == "validation"].set_index(by).index
    blind = chosen[~chosen.set_index(by).index.isin(honest)]
    if len(blind):
        methods = " and ".join(blind["method"].unique())
        yield (
            f"No validation metric for {methods}: {_axes(blind, design)} can only be chosen on the "
            "test data that are reported, which flatters the gains."
        )
    quoted = statistics.headline(chosen)
    for (panel, method), rows in quoted.groupby(["panel", "method"], sort=False):
        if rows["edge"].any():
            where = f"the edge of its grid at {rows['edge'].sum()} of {_count(len(rows), 'size')}"
            best = f"the best {_axes(rows, design)} of {method}"
            yield _start(panel, f"{best} is at {where}: a better one may lie beyond")


def few_seeds(gains):
    """Warnings: gains from fewer than three pairs of seeds."""
    by = ["panel", "method", "against"]
    for (panel, method, against), rows in gains.groupby(by, sort=False):
        few = rows[rows["n"] < FEW]
        if len(few):
            sizes = f"at {len(few)} of {_count(len(rows), 'size')}"
            gain = f"the gain of {method} over {against}"
            text = f"{gain} rests on fewer than {FEW} pairs of seeds {sizes}"
            so = "one pair gives no interval" if few["n"].min() < 2 else "intervals are very wide"
            yield _start(panel, f"{text}: {so}")


def bends(rows, design):
    """Warnings: gains that are not monotone beyond what seeds explain."""
    for row in rows.itertuples():
        up, down = ("rises", "falls") if row.shape > 0 else ("falls", "rises")
        rise, fall = (_amount(abs(step), design, sign="") for step in (row.rise, row.fall))
        gain = f"the gain of {row.method} over {row.against} is not monotone"
        there = f"{design.x_name} = {row.x:,.6g}"
        yield _start(row.panel, f"{gain}: it {up} by {rise} up to {there}, then {down} by {fall}")


def worse(row, design):
    """Warning: a baseline that got worse as x grew."""
    if row.sinks:
        slope = _amount(-row.slope, design, sign="")
        ends = _interval(-row.high, -row.low, design)
        how = f"by {slope} per {_step(design)}, {ends}"
    else:
        drop = _amount(row.fall, design, sign="")
        how = f"by {drop} since its best at {design.x_name} = {row.x:,.6g}"
    claim = f"the baseline {row.method} itself got worse as {design.x_name} grew ({how})"
    return _start(row.panel, f"{claim}: then the gain is not SAM's merit")


def _tally(rows, worse, design):
    """Many trends in one to three sentences."""
    verdicts = rows["verdict"].mask(rows["n"].between(1, FEW - 1), "too few seeds")
    named = rows["method"] + rows["panel"].map(lambda panel: f" with {panel}" if panel else "")

    def count(verdict):
        names = list(named[verdicts == verdict])
        few = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"{len(names)} of {len(rows)}" + (f" ({few})" if few else "")

    text = (
        f"Gains over {design.baseline} that grow with {design.x_name}: {count('grows')}; that "
        f"shrink: {count('shrinks')}; without evidence of a change: {count('no evidence')}."
    )
    if (verdicts == "too few seeds").any():
        text += f" With fewer than {FEW} seeds, which do not tell: {count('too few seeds')}."
    sunk = rows["panel"].isin(worse.loc[worse["method"] == design.baseline, "panel"]).sum()
    caution = f" For {sunk} of {len(rows)}, {design.baseline} itself got worse."
    return text + caution if sunk else text


def _claim(row, gain, design):
    if row.n < FEW:
        verb = "does" if row.n == 1 else "do"
        what = f"{gain} changes with {design.x_name}"
        return f"{_count(row.n, 'seed')} {verb} not tell whether {what}"
    verb = f"{gain} {VERBS[row.verdict]} with {design.x_name}"
    return f"there is no evidence that {verb}" if row.verdict == "no evidence" else verb


def _protocol(row, design):
    if row.protocol == "validation":
        return ""
    if row.protocol == "test":
        return f" ({' and '.join(design.nuisance)} chosen on test)" if design.nuisance else ""
    return f" at {row.protocol}"


def _axes(rows, design):
    """The nuisance axes that apply to these rows, in words."""
    return " and ".join(axis for axis in design.nuisance if rows[axis].notna().any())


def _interval(low, high, design):
    if low != low:
        return "no interval from one seed"
    low, high = (_amount(end, design, unit=False) for end in (low, high))
    return f"95 % interval {low} to {high}"


def _amount(value, design, sign="+", unit=True):
    """Two digits: "+0.31 points" for an accuracy, "-0.012 in loss" for a loss."""
    points = design.metric == "accuracy"
    number = f"{float(f'{100 * value if points else value:.2g}'):{sign}g}"
    noun = f"in {design.metric}"
    if points:
        noun = "point" if number.lstrip("+-") == "1" else "points"
    return f"{number} {noun}" if unit else number


def _step(design):
    return "factor of ten" if design.log_x else "unit"


def _count(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _share(flags):
    return f"{flags.sum()} of {len(flags)}"


def _by_method(rows):
    return ", ".join(f"{name} {n}" for name, n in rows["method"].value_counts(sort=False).items())


def _start(panel, text):
    """A sentence, about one panel where there are several."""
    return f"With {panel}, {text}." if panel else f"{text[0].upper()}{text[1:]}."
