"""Names of columns in the tables of a study, which no axis may bear.

The value of a nuisance axis stands in a column under the axis's name, beside these; the labels of
all axes stand in the lines of ``study.jsonl``. A test looks at every table that is ever made.
"""

LINE = ("run_id", "status", "reason", "seconds", "time")  # of study.jsonl, beside labels and value
# fmt: off
TABLES = (
    "against", "at", "base", "below", "bias", "cell", "edge", "efficiency", "epoch", "extra",
    "facet", "fall", "fall_sure", "first", "gain", "gradients", "high", "honest", "last", "low",
    "max", "mean", "measure", "measured", "memory", "method", "min", "n", "nuisance",
    "num_params", "nunique", "order", "p", "panel", "parameters", "part", "picked", "position",
    "protocol", "radius", "rank", "reason", "rise", "rise_sure", "run_id", "score",
    "score_against", "seconds", "seed", "select", "sem", "sentence", "series", "shape", "sinks",
    "size", "sizes", "slope", "squares", "status", "tau", "test", "text", "validation", "value",
    "values", "verdict", "w", "wb", "x",
)
# fmt: on
PREFIXES = ("flatness_",)


def is_column(name: str, nuisance: bool) -> bool:
    """Whether an axis of that name would hide a column, of ``nuisance`` axes or of any."""
    return name in LINE or (nuisance and (name in TABLES or name.startswith(PREFIXES)))
