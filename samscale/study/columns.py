"""Names of columns in the tables of a study, which no axis may bear.

The value of a nuisance axis stands in a column under the axis's name, beside these; the labels of
all axes stand in the lines of ``study.jsonl``. Tests look for every name in the code that reads
those tables.
"""

LINE = ("run_id", "status", "reason", "seconds", "time")  # of study.jsonl, beside labels and value
TABLES = ()
PREFIXES = ("flatness_",)


def is_column(name: str, nuisance: bool) -> bool:
    """Whether an axis of that name would hide a column, of ``nuisance`` axes or of any."""
    return name in LINE or (nuisance and (name in TABLES or name.startswith(PREFIXES)))
