"""Tables for other programs, and for the screen."""

import pandas as pd

SHOWN = ("run_id", "status", "epoch", "num_params", "train_loss", "test_accuracy", "seconds")


def where(table: pd.DataFrame, condition: str | None) -> pd.DataFrame:
    """The rows for which a condition on columns holds; ``ValueError`` where it cannot be read."""
    if not condition:
        return table
    if table.empty:
        return table
    try:
        kept = table.query(condition)
        if not isinstance(kept, pd.DataFrame):
            raise ValueError("it is no condition")
        return kept
    except Exception as error:  # pandas raises whatever its parser meets
        raise ValueError(
            f"where={condition!r}: must be a condition on columns, as in "
            f"'width > 300 and optimizer == \"sam\"' ({error})"
        ) from error


def text(table: pd.DataFrame, kind: str) -> str:
    """csv, json (a line a run), or a few columns for the screen."""
    if kind == "csv":
        return table.to_csv(index=False).rstrip("\n")
    if kind == "json":
        return table.to_json(orient="records", lines=True).rstrip("\n")
    if table.empty:
        return "no runs"
    return table[[name for name in SHOWN if name in table]].to_string(index=False)


def to_parquet(table: pd.DataFrame, path) -> None:
    """Needs pyarrow; raises ``ValueError`` where it is not installed."""
    try:
        plain = table.map(lambda v: str(list(v)) if isinstance(v, tuple) else v)
        plain.to_parquet(path, index=False)
    except ImportError as error:
        raise ValueError("parquet: needs pyarrow; pip install 'samscale[parquet]'") from error
