"""Tables for spreadsheets hold no formula, and numbers as they are."""

import io

import pandas as pd
import pytest

from samscale.study import tables

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "=cmd|' /C calc'!A0"]
PLAIN = ["sam", "-1", "+3", "-1e-05", "[300, 100]", "a=b", "", "sam -rho 3", "1-2"]


ROWS = {"a\r=1": "a\n=1", "a\r\n=1": "a\n=1"}


def read(text):
    return pd.read_csv(io.StringIO(text, newline=""), keep_default_na=False, dtype=str)


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_would_compute_is_text(text):
    table = pd.DataFrame({text: [text], "reason": [text], "loss": [-1.5]})
    found = read(tables.csv(table))
    inert = "'" + text.replace("\r", "\n")
    assert list(found.columns) == [inert, "reason", "loss"]
    assert found.iloc[0].tolist() == [inert, inert, "-1.5"]


def test_no_text_begins_a_row_of_its_own():
    found = read(tables.csv(pd.DataFrame({"reason": list(ROWS)})))
    assert found["reason"].tolist() == list(ROWS.values())


def test_everything_else_stays_as_it_is():
    table = pd.DataFrame({"size": PLAIN, "loss": -0.1, "n": -3, "widths": [(-1, 2)] * len(PLAIN)})
    assert tables.csv(table) == table.to_csv(index=False)
    assert tables.csv(pd.DataFrame({"a": []})) == "a\n"
