"""Tables for other programs, and for the screen."""

import dataclasses
import re

import pandas as pd

from samscale.config import Config

SHOWN = ("epoch", "num_params", "train_loss", "test_accuracy", "seconds")


def csv(table: pd.DataFrame) -> str:
    """Comma-separated, with nothing that a spreadsheet would take for a formula.

    Spreadsheets compute a cell that begins with =, +, - or @, and some also look behind blanks, so
    such texts begin with an apostrophe here. Numbers stay numbers, also where a label is one.
    """
    plain = table.map(_inert).rename(columns=_inert)
    return plain.to_csv(index=False)


def _inert(value):
    if not isinstance(value, str):
        return value
    text = re.sub("\r\n?", "\n", value)  # a bare return would end the row, for it is not quoted
    try:
        float(text)
    except ValueError:
        return f"'{text}" if _FORMULA.match(text) else text
    return text


_FORMULA = re.compile(r"[\t\n]|\s*[=+\-@＝＋－＠]")


def text(table: pd.DataFrame, kind: str) -> str:
    """csv, json (a line a run), or a few columns for the screen."""
    if kind == "csv":
        return csv(table).rstrip("\n")
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
