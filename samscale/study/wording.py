"""The parts that sentences about a study have in common: amounts, intervals, counts."""


def interval(low, high, design):
    """ "95 % interval -0.1 to +0.4", in the unit of ``amount``."""
    if low != low:
        return "no interval from one seed"
    low, high = (amount(end, design, unit=False) for end in (low, high))
    return f"95 % interval {low} to {high}"


def amount(value, design, sign="+", unit=True):
    """Two digits: "+0.31 points" for an accuracy, "-0.012 in loss" for a loss."""
    points = design.metric == "accuracy"
    number = f"{float(f'{100 * value if points else value:.2g}'):{sign}g}"
    noun = f"in {design.metric}"
    if points:
        noun = "point" if number.lstrip("+-") == "1" else "points"
    return f"{number} {noun}" if unit else number


def level(value, design):
    """A value of the metric itself: "95.6 %"."""
    return f"{100 * value:.4g} %" if design.metric.endswith("accuracy") else f"{value:.4g}"


def unit_of_x(design):
    """What slopes are per."""
    return "factor of ten" if design.log_x else "unit"


def count(n, noun):
    """ "1 seed", "5 seeds"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def share(flags):
    """ "3 of 12", of a column of booleans."""
    return f"{flags.sum()} of {len(flags)}"


def by_method(rows):
    """How many rows each method has: "sgd 2, sam 5"."""
    return ", ".join(f"{name} {n}" for name, n in rows["method"].value_counts(sort=False).items())


def sentence(panel, text):
    """A sentence, about one panel where there are several."""
    return f"With {panel}, {text}." if panel else f"{text[0].upper()}{text[1:]}."
