"""What the tables of `analysis` say, in words: verdicts, warnings, the answer.

Accuracies are told in percentage points, anything else in its own unit; two digits are enough.
"""

import numpy as np

from samscale.study import statistics
from samscale.study.agreement import SLOPE
from samscale.study.choices import candidates
from samscale.study.statistics import OTHERS, TEST, TREND, VALIDATION
from samscale.study.wording import (
    amount,
    by_method,
    count,
    interval,
    level,
    sentence,
    share,
    unit_of_x,
)

VERBS = {"grows": "grows", "shrinks": "shrinks", "no evidence": "changes"}
TWO = "it needs two sizes"
NAMED = 3  # runs or cells that a warning names; the others are counted
FEW = 3  # seeds: below, an interval is so wide that it tells nothing, and is not drawn


def trend(row, design):
    """A row of ``trends``: "The gain of sam over sgd grows with parameters: ..., on 10 seeds."."""
    gain = f"the gain of {row.method} over {row.against}{_protocol(row, design)}"
    if not row.n:
        return sentence(row.panel, f"nothing can be said yet of how {gain} changes: {TWO}")
    if row.sizes < TREND and row.n >= FEW:
        return sentence(row.panel, _between(row, gain, design))
    claim = _claim(row, gain, design)
    slope = f"{amount(row.slope, design)} per {unit_of_x(design)}"
    slope = f"{slope} ({interval(row.low, row.high, design)})"
    rank = f", Kendall's tau {row.tau:+.2f} (p = {row.p:.2g})" if row.tau == row.tau else ""
    seeds = "" if row.n < FEW else f", on {count(row.n, 'seed')}"
    return sentence(row.panel, f"{claim}: {slope}{rank}{seeds}")


def radius(row, design):
    """A row of ``radius``: how the best nuisance value moves over sizes."""
    best = f"the best {row.nuisance} of {row.method}"
    if row.sizes < 2:
        return sentence(row.panel, f"nothing can be said yet of how {best} changes: {TWO}")
    if row.values == 1:
        return sentence(row.panel, f"{best} is {row.first:g} at each of {row.sizes} sizes")
    moves = f"{row.first:g} at the smallest size, {row.last:g} at the largest"
    edge = ""
    if row.edges:
        where = f"{row.edges} of {count(row.told, 'size')}"
        edge = f"; at {where} it is at the edge of its grid, and the true one may lie beyond"
    if not row.sizes >= TREND:
        few = f"too few sizes to tell whether {best} changes with {design.x_name}"
        return sentence(row.panel, f"{few}, a trend needs {TREND}: {moves}{edge}")
    if row.n < FEW:
        few = f"{count(row.n, 'seed')} {'does' if row.n == 1 else 'do'} not tell"
        return sentence(
            row.panel, f"{few} whether {best} changes with {design.x_name}: {moves}{edge}"
        )
    how = f"{_factor(row, design)}, on {count(row.n, 'seed')}"
    if row.verdict == "no evidence":
        claim = f"there is no evidence that {best} changes with {design.x_name}"
        return sentence(row.panel, f"{claim}: {moves} ({how}){edge}")
    return sentence(row.panel, f"{best} {row.verdict} with {design.x_name}: {moves} ({how}){edge}")


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
        f"{amount(end.mean, design)} over {end.against} ({interval(end.low, end.high, design)})"
        for end in ends.itertuples()
    )
    last = f"At the largest size, {ends['size'].iloc[0]}, it is {sizes}."
    return f"{row.sentence[:-1]}{caution}. {last}"


def selection(gains, design):
    """What a choice on the same seeds, or on the reported data, adds to the gains."""
    how = {
        VALIDATION: f"one {' and '.join(design.nuisance)} for all seeds, chosen on validation",
        TEST: f"{' and '.join(design.nuisance)} chosen on {design.split}, as papers do",
    }
    told = gains[gains["protocol"].isin(how) & (gains["against"] == design.baseline)]
    told = told.dropna(subset=["bias"])
    if not design.nuisance:
        return
    for (panel, method, protocol), rows in told.groupby(["panel", "method", "protocol"]):
        mean, bias = rows["mean"].mean(), rows["bias"].mean()
        if protocol == VALIDATION and abs(bias) <= 1e-9 * abs(mean):
            continue
        over = f"the mean gain of {method} over {design.baseline}"
        numbers = f"{amount(mean, design)} instead of {amount(mean - bias, design)}"
        text = f"with {how[protocol]}, {over} would be {numbers}"
        yield sentence(panel, f"{text}: selection adds {amount(bias, design)}")


def many(gains):
    """How many gains differ from 0 once it is counted how many were looked at."""
    tested = gains.dropna(subset=["p"])
    if len(tested) < 2:
        return
    alone, sure = (tested[tested[name] < 0.05] for name in ("p", "p_holm"))
    names = sure["method"] + " over " + sure["against"] + " at " + sure["size"]
    names += sure["panel"].map(lambda panel: f" with {panel}" if panel else "")
    which = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    yield (
        f"Of {len(tested)} gains, the intervals of {len(alone)} leave out 0; after Holm's "
        f"correction for {len(tested)}, {len(sure)}" + (f" ({which})." if len(sure) else ".")
    )


def agreement(compared, design):
    """How far the gains, and their slope, are from the paper's."""
    rows = compared[(compared["series"] == "gain")]
    best = TEST if design.nuisance else OTHERS  # as papers choose
    rows = rows[rows["protocol"] == best]
    for (panel, method), found in rows.groupby(["panel", "method"], sort=False):
        points, slope = (found[(found["size"] == SLOPE) == flag] for flag in (False, True))
        over = f"the gain of {method} over {design.baseline}"
        chosen = f", {' and '.join(design.nuisance)} chosen on test" if design.nuisance else ""
        outside = statistics.excludes_zero(points["low"], points["high"]) != 0
        text = f"{over}{chosen}, differs from the paper's at {share(outside)} sizes"
        if points["paper_sem"].isna().all():
            text += " (the paper prints no errors)"
        for row in slope.itertuples():
            step = f"per {unit_of_x(design)}"
            text += (
                f"; its slope is {amount(row.ours, design)} {step}, the paper's "
                f"{amount(row.paper, design)}: {amount(row.difference, design)} apart "
                f"({interval(row.low, row.high, design)})"
            )
        yield sentence(panel, text)


def unfinished(cells):
    """Warnings: runs that failed (or ended without a finite value) and runs that are missing."""
    failed = cells["status"] == "failed"
    failed |= (cells["status"] == "done") & ~np.isfinite(cells["value"])
    for run in cells[failed][:1].itertuples():
        why = run.reason or "its value is not finite"
        yield (
            f"{share(failed)} runs failed ({by_method(cells[failed])}), for instance "
            f"{run.method} at {run.size}: {why}. Gains rest on the others."
        )
    missing = cells["status"] == "missing"
    if missing.any():
        yield f"{share(missing)} runs are missing ({by_method(cells[missing])})."


def choices(fixed, chosen, design):
    """Warnings: values not compared for want of seeds, chosen on test data, or at an edge."""
    uneven = fixed[~candidates(fixed)]
    for (panel, method), rows in uneven.groupby(["panel", "method"], sort=False):
        kinds = f"values of {_axes(rows, design)} for {method}"
        text = f"{kinds} with fewer finished seeds than others could not be chosen"
        yield sentence(panel, f"at {count(rows['size'].nunique(), 'size')}, {text}")
    by = ["panel", "size", "method"]
    honest = chosen[chosen["protocol"] == VALIDATION].set_index(by).index
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
            where = f"the edge of its grid at {rows['edge'].sum()} of {count(len(rows), 'size')}"
            best = f"the best {_axes(rows, design)} of {method}"
            yield sentence(panel, f"{best} is at {where}: a better one may lie beyond")


def lone_seeds(chosen, design):
    """Warning: cells where no other seed could choose for a seed."""
    alone = chosen[(chosen["n"] < 2) & (chosen["protocol"] == OTHERS)]
    alone = alone.dropna(subset=list(design.nuisance), how="all") if design.nuisance else alone[:0]
    for (panel, method), rows in alone.groupby(["panel", "method"], sort=False):
        at = count(rows["size"].nunique(), "size")
        axes = _axes(rows, design)
        text = f"at {at}, a single seed of {method} chose its {axes} on its own validation data"
        yield sentence(panel, f"{text}: luck of that run is part of its gain")


def tries(counts, design):
    """Warning: methods that could choose among more values than others."""
    if counts.nunique() < 2:
        return
    most = ", ".join(f"{name} {n}" for name, n in counts.sort_values(ascending=False).items())
    names = " and ".join(design.nuisance)
    yield (
        f"Methods had unequal numbers of tries, that is values of {names} to choose among: {most}."
    )


def outliers(found, design):
    """Warning: runs that lie far from the other seeds, those behind the quoted gains first."""
    found = found.assign(quoted=found["quoted"].eq(True))
    found = found.sort_values("quoted", ascending=False, kind="stable")
    runs = [
        f"{' '.join(filter(None, [row['panel'], row['method'], *_values(row, design)]))} at "
        f"{row['size']}, seed {row['seed']}: {level(row['value'], design)}, where the median of "
        f"its seeds is {level(row['median'], design)}"
        for row in found[:NAMED].to_dict("records")
    ]
    if runs:
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        behind = f", {found['quoted'].sum()} of them behind the gains that are quoted"
        number = f"{count(len(found), 'run')} {'lies' if len(found) == 1 else 'lie'}"
        text = f"{number} far from the other seeds{behind} ({'; '.join(runs)}{more})"
        yield f"{text}. A mean follows such a run; the rank-based interval hardly does."


def _values(row, design):
    return [f"{name} {row[name]:g}" for name in design.nuisance if row[name] == row[name]]


def unlearned(found, design):
    """Warnings: cells no better than a constant prediction, those of the baseline first."""
    first = found["method"] != design.baseline
    found = found.assign(first=first).sort_values("first", kind="stable")
    for (panel, method), rows in found.groupby(["panel", "method"], sort=False):
        sizes = ", ".join(rows["size"][:NAMED]) + (", ..." if len(rows) > NAMED else "")
        levels = f"{level(rows['value'].iloc[0], design)}"
        chance = level(rows["chance"].iloc[0], design)
        claim = f"{method} has not learned at {count(len(rows), 'size')} ({sizes})"
        text = f"{claim}: {levels}, where a constant prediction has {chance}"
        so = ", so that gains over it mean little" if method == design.baseline else ""
        yield sentence(panel, text + so)


def few_seeds(gains):
    """Warnings: gains from fewer than three pairs of seeds."""
    by = ["panel", "method", "against"]
    for (panel, method, against), rows in gains.groupby(by, sort=False):
        few = rows[rows["n"] < FEW]
        if len(few):
            sizes = f"at {len(few)} of {count(len(rows), 'size')}"
            gain = f"the gain of {method} over {against}"
            text = f"{gain} rests on fewer than {FEW} pairs of seeds {sizes}"
            so = "one pair gives no interval" if few["n"].min() < 2 else "intervals are very wide"
            yield sentence(panel, f"{text}: {so}")


def bends(rows, design):
    """Warnings: gains that are not monotone beyond what seeds explain."""
    for row in rows.itertuples():
        up, down = ("rises", "falls") if row.shape > 0 else ("falls", "rises")
        rise, fall = (amount(abs(step), design, sign="") for step in (row.rise, row.fall))
        gain = f"the gain of {row.method} over {row.against} is not monotone"
        there = f"{design.x_name} = {row.x:,.6g}"
        yield sentence(row.panel, f"{gain}: it {up} by {rise} up to {there}, then {down} by {fall}")


def worse(row, design):
    """Warning: a baseline that got worse as x grew."""
    if row.sinks:
        slope = amount(-row.slope, design, sign="")
        ends = interval(-row.high, -row.low, design)
        how = f"by {slope} per {unit_of_x(design)}, {ends}"
    else:
        drop = amount(row.fall, design, sign="")
        how = f"by {drop} since its best at {design.x_name} = {row.x:,.6g}"
    claim = f"the baseline {row.method} itself got worse as {design.x_name} grew ({how})"
    return sentence(row.panel, f"{claim}: then the gain is not SAM's merit")


def _tally(rows, worse, design):
    """Many trends in one to three sentences."""
    verdicts = rows["verdict"].mask(rows["sizes"] < TREND, "too few sizes")
    verdicts = verdicts.mask(rows["n"].between(1, FEW - 1), "too few seeds")
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
    if (verdicts == "too few sizes").any():
        text += f" With fewer than {TREND} sizes, which do not tell: {count('too few sizes')}."
    told = verdicts.isin(["grows", "shrinks"]).sum()
    if told:
        text += f" After Holm's correction for {len(rows)} trends, {_sure(rows)} of {told} remain."
    sunk = rows["panel"].isin(worse.loc[worse["method"] == design.baseline, "panel"]).sum()
    caution = f" For {sunk} of {len(rows)}, {design.baseline} itself got worse."
    return text + caution if sunk else text


def _claim(row, gain, design):
    if row.n < FEW:
        verb = "does" if row.n == 1 else "do"
        what = f"{gain} changes with {design.x_name}"
        return f"{count(row.n, 'seed')} {verb} not tell whether {what}"
    verb = f"{gain} {VERBS[row.verdict]} with {design.x_name}"
    return f"there is no evidence that {verb}" if row.verdict == "no evidence" else verb


def _between(row, gain, design):
    """Of two sizes: their difference, which is no trend."""
    ends = (float(row.span * end) for end in (row.slope, row.low, row.high))
    difference, low, high = ends
    size = f"{amount(difference, design)} more at the larger ({interval(low, high, design)})"
    return f"two sizes do not show a trend: {gain} is {size}, on {count(row.n, 'seed')}"


def _sure(rows):
    return int(((rows["p_holm"] < 0.05) & rows["verdict"].isin(["grows", "shrinks"])).sum())


def _factor(row, design):
    """How far the mean best of the seeds moves."""
    unit = f"per {unit_of_x(design)}"
    if not row.log:
        return f"{row.slope:+.2g} {unit}, 95 % interval {row.low:+.2g} to {row.high:+.2g}"
    times, low, high = (10.0 ** min(end, 99.0) for end in (row.slope, row.low, row.high))
    return f"times {times:.2g} {unit}, 95 % interval {low:.2g} to {high:.2g}"


def _protocol(row, design):
    names = " and ".join(design.nuisance)
    if row.protocol in (VALIDATION, TEST) and not names:
        return ""
    where = {OTHERS: "", TEST: f" ({names} chosen on test)"}
    where[VALIDATION] = f" ({names} chosen on validation of the same seeds)"
    return where.get(row.protocol, f" at {row.protocol}")


def _axes(rows, design):
    """The nuisance axes that apply to these rows, in words."""
    return " and ".join(axis for axis in design.nuisance if rows[axis].notna().any())
