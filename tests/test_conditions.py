"""What ``results --where`` keeps, what it refuses, and that nothing in it is run."""

import numpy as np
import pandas as pd
import pytest

from samscale.study import conditions

TABLE = pd.DataFrame(
    {
        "run": ["a", "b", "c", "d"],
        "optimizer": ["sam", "sgd", "sam", np.nan],
        "width": [4, 8, 16, 32],
        "num_neurons": [(4,), (8, 4), (16,), (32,)],
        "loss": [0.5, np.nan, 1.5, -2.0],
        "nesterov": [True, False, True, False],
        "late": [True, np.nan, False, np.nan],
        "my metric": [1.0, 2.0, 3.0, 4.0],
        "absent": [np.nan] * 4,
        "mixed": [1, "x", (3,), None],
        "exempt": [(), ("Dense_0",), (), ()],
    }
)
KEPT = {
    "width > 4": "bcd",
    "4 < width <= 16": "bc",
    "16 >= width > 4": "bc",
    "width == 8 or width == 16": "bc",
    "width > 4 and optimizer == 'sam'": "c",
    'width > 4 & optimizer == "sam"': "c",  # as in pandas, & binds as and does
    "width == 4 | width == 8": "ab",
    "(width > 4) && ~(width > 8)": "b",
    "not optimizer == 'sam'": "bd",
    "optimizer != 'sam'": "bd",
    "optimizer in ('sam', 'adam')": "ac",
    "optimizer in ['sgd']": "b",
    "optimizer not in ('sam',)": "bd",
    "optimizer == ['sam', 'sgd']": "abc",
    "optimizer < 'sb'": "ac",
    "optimizer == '&|`='": "",
    "width in [4, 32]": "ad",
    "width == (4, 8)": "ab",
    "width != [4, 8]": "cd",
    "[4, 8] == width": "ab",
    "num_neurons == (4,)": "a",
    "num_neurons == [8, 4]": "b",
    "num_neurons != (4,)": "bcd",
    "num_neurons in [(4,), (32,)]": "ad",
    "4 in num_neurons": "ab",
    "8 not in num_neurons": "acd",
    "num_neurons > (8,)": "bcd",
    "exempt == ()": "acd",
    "'Dense_0' in exempt": "b",
    "loss > 0": "ac",
    "loss == loss": "acd",
    "loss != loss": "b",
    "not loss > 0": "bd",
    "-loss > 0": "d",
    "loss + 1 > 0": "ac",
    "loss not in (0.5, 1.5)": "bd",
    "width / 8 == 1": "b",
    "width % 8 == 4": "a",
    "width // 3 == 2": "b",
    "width ** 2 == 64": "b",
    "width == 2 ** 3": "b",
    "width < 9 ** 9 ** 9 ** 9": "abcd",
    "width / 0 > 1": "abcd",
    "(-width) ** 0.5 == 1": "",
    "width == " + "9" * 4000: "",
    "nesterov": "ac",
    "not nesterov": "bd",
    "nesterov == True and width > 4": "c",
    "nesterov == 1": "ac",
    "late": "a",
    "late == False": "c",
    "`my metric` > 2": "cd",
    "`my metric`>2 and `width`<32": "c",
    "absent > 1 or absent == 'x' or absent in (1,)": "",
    "mixed == 1": "a",
    "mixed == 'x'": "b",
    "mixed == (3,)": "c",
    "mixed > 0": "a",
    "True": "abcd",
    "1 > 2": "",
    " width > 4 ": "bcd",
    "width > 4  # not 8": "bcd",
}


@pytest.mark.parametrize("condition", KEPT)
def test_a_condition_keeps_its_rows(condition):
    assert "".join(conditions.rows(TABLE, condition)["run"]) == KEPT[condition]


BESIDE_PANDAS = [
    "width > 4 & optimizer == 'sam'",
    "optimizer == ['sam', 'sgd']",
    "width in [4, 8] and not nesterov",
    "loss != loss | width < 9",
    "-2.5 < loss < 1 and `my metric` >= 1",
    "width * 2 + 1 == 17 or width ** 0.5 == 2",
    "optimizer not in ('sam', 'adam')",
    "width == [4, 8]",
    "width != [4, 8]",
    "~nesterov & width // 3 == 2",
]


@pytest.mark.parametrize("condition", BESIDE_PANDAS)
def test_what_pandas_understands_means_the_same(condition):
    pd.testing.assert_frame_equal(conditions.rows(TABLE, condition), TABLE.query(condition))


REFUSED = {
    "widht > 4": "no column 'widht'; did you mean width?",
    "zzz > 4": "no column 'zzz'; there are run, optimizer, width, num_neurons",
    "`my metrik` > 4": "no column 'my metrik'; did you mean my metric?",
    "__import__ > 1": "no column '__import__'",
    "@width > 4": "cannot be read; write columns",
    "@pd.io.common.os.system('id')": "cannot be read",
    "width.real > 4": "width.real is not part of a condition",
    "run.str.len() > 0": "run.str.len() is not part",
    "print(1) == 1": "print(1) is not part",
    "width[0] > 1": "width[0] is not part",
    "num_neurons[0] == 4": "is not part",
    "(lambda: 1) == 1": "is not part",
    "[x for x in (1,)] == 1": "is not part",
    "(1 if True else 2) == 1": "is not part",
    "f'{run}' == 'a'": "is not part",
    "(x := 3) == 3": "is not part",
    "width == None": "None is not part",
    "width == b'4'": "is not part",
    "width == 4j": "is not part",
    "width == {4}": "is not part",
    "width == (*num_neurons,)": "is not part",
    "width @ width == 1": "is not part",
    "width << 99999999999 > 1": "is not part",
    "width ^ width == 1": "is not part",
    "width is 4": "write == or != to compare",
    "width = 4": "write == for equal",
    "width": "it is a number, which neither holds nor fails",
    "width + 1": "it is a number",
    "optimizer": "it is text",
    "(4,)": "it is a tuple",
    "width and nesterov": "width is a number, but must be true or false",
    "not width": "width is a number, but must be true or false",
    "optimizer * 10 ** 10 == 'a'": "optimizer is text, but must be a number",
    "-optimizer == 1": "optimizer is text, but must be a number",
    "'a' * 10 ** 10 == 'a'": "'a' is text, but must be a number",
    "num_neurons == 4": "num_neurons and 4 are never alike: one is a number and one a tuple",
    "num_neurons in (4, 8)": "num_neurons and 4 are never alike",
    "width == (4, 'a')": "width and 'a' are never alike",
    "width == '4'": "width and '4' are never alike",
    "optimizer > 3": "optimizer and 3 are never alike",
    "my metric > 2": "cannot be read",
    "optimizer in 'sam'": "in 'sam': must be a list",
    "'s' in optimizer": "in optimizer: must be a list",
    "width in optimizer": "in optimizer: must be a list",
    "": "cannot be read",
    "width >": "cannot be read",
    "width > 4; width": "cannot be read",
    "width > 4\x00": "cannot be read",
    "'": "cannot be read",
    "import os": "cannot be read",
    "not " * 2_000 + "nesterov": "where='not not",
    "(" * 3_000 + "nesterov" + ")" * 3_000: "where='(((",
    "nesterov" + " and nesterov" * 5_000: "longer than 10000 characters",
    "width == " + "9" * 5000: "cannot be read",
}


@pytest.mark.parametrize("condition", REFUSED, ids=lambda text: text[:40] or "empty")
def test_what_is_no_condition_is_refused_in_one_sentence(condition):
    with pytest.raises(ValueError, match=r"^where=") as caught:
        conditions.rows(TABLE, condition)
    assert REFUSED[condition] in str(caught.value)
    assert "\n" not in str(caught.value).replace(condition, "")


def test_a_table_without_columns_has_no_rows_to_keep():
    assert conditions.rows(pd.DataFrame(), "width > 4").empty
    with pytest.raises(ValueError, match="cannot be read"):
        conditions.rows(pd.DataFrame(), "width >")
