"""Names of columns in the tables of a study, which no axis may bear.

The value of a nuisance axis stands in a column under the axis's name, beside these; the labels of
all axes stand in the lines of ``study.jsonl``. A test looks at every table that is ever made.
"""

LINE = ("run_id", "status", "reason", "seconds", "time")  # of study.jsonl, beside labels and value
# fmt: off
TABLES = (
    "_value", "against", "alone", "at", "base", "below", "best", "bias", "cell", "chance", "choice",
    "count", "covariance", "covariance_against", "detectable", "difference", "doubt", "edge",
    "edges", "effect", "efficiency", "epoch", "extra", "facet", "fall", "fall_sure", "far", "first",
    "freedom", "gain", "gradients", "high", "honest", "last", "least", "log", "low", "max", "mean",
    "measure", "measured", "median", "memory", "method", "middle", "min", "most", "n", "needed",
    "nuisance", "num_params", "nunique", "one", "order", "ours", "ours_freedom", "ours_sem", "own",
    "p", "p_holm", "p_slope", "panel", "paper", "paper_freedom", "paper_sem", "parameters", "part",
    "picked", "position", "protocol", "quoted", "radius", "rank", "rank_high", "rank_level",
    "rank_low", "reason", "rise", "rise_sure", "run_id", "score", "score_against", "seconds",
    "seed", "select", "sem", "sentence", "series", "shape", "signed", "sinks", "size", "sizes",
    "slope", "span", "square", "squares", "status", "sum", "sure", "tau", "test", "text", "told",
    "validation", "value", "values", "variance", "verdict", "vertex", "x", "z",
)
# fmt: on
PREFIXES = ("flatness_",)


def is_column(name: str, nuisance: bool) -> bool:
    """Whether an axis of that name would hide a column, of ``nuisance`` axes or of any."""
    return name in LINE or (nuisance and (name in TABLES or name.startswith(PREFIXES)))
