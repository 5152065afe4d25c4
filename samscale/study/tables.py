"""Tables for other programs, and for the screen."""

import dataclasses

import pandas as pd

from samscale.config import Config

SHOWN = ("epoch", "num_params", "train_loss", "test_accuracy", "seconds")


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
    shown = ("run_id", "status", *_telling(table), *SHOWN)
    columns = {name: _whole(table[name]) for name in shown if name in table}
    return pd.DataFrame(columns).to_string(index=False, na_rep="")


def _telling(table):
    """The knobs that tell runs apart whose names differ in nothing but the hash at their end."""
    words = table["run_id"].str.rpartition("-")[0]
    knobs = [knob.name for knob in dataclasses.fields(Config) if knob.metadata["identity"]]
    return [k for k in knobs if k in table and (table.groupby(words)[k].nunique() > 1).any()]


def _whole(column):
    """Integers remain integers beside what is not known yet."""
    if column.dtype.kind != "f" or not (column.dropna() % 1 == 0).all():
        return column
    return column.map(lambda value: "" if value != value else f"{value:.0f}")


def to_parquet(table: pd.DataFrame, path) -> None:
    """Needs pyarrow; raises ``ValueError`` where it is not installed."""
    try:
        plain = table.map(lambda v: str(list(v)) if isinstance(v, tuple) else v)
        plain.to_parquet(path, index=False)
    except ImportError as error:
        raise ValueError("parquet: needs pyarrow; pip install 'samscale[parquet]'") from error
