"""Arrays of a task of one's own: what no device can take is one sentence before anything runs."""

import datetime
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from samscale import tasks
from samscale.config import Config
from samscale.data import arrays

X = np.zeros((4, 2), np.float32)
GOOD = {"x": X, "y": np.array([0, 1, 2, 1])}


def splits(name="train", **changed):
    return {split: GOOD | (changed if split == name else {}) for split in arrays.SPLITS}


@pytest.mark.parametrize(
    "x",
    [
        X.tolist(),
        pd.DataFrame(X),
        jnp.asarray(X),
        pd.DataFrame({"a": pd.Series([1.0, 2.0, 3.0, 4.0], index=[9, 8, 7, 6]), "b": [0.5] * 4}),
    ],
    ids=["list", "DataFrame", "JAX", "index"],
)
def test_lists_and_columns_of_pandas_are_arrays(x):
    found = arrays.checked(splits(x=x))["train"]["x"]
    assert isinstance(found, np.ndarray | jax.Array)
    np.testing.assert_array_equal(found, np.asarray(x))


@pytest.mark.parametrize(
    "x, words",
    [
        (list("abcd"), "must be an array of numbers, not of <U1"),
        (pd.Series(list("abcd")), "must be an array of numbers, not of objects (str among them)"),
        (pd.Series(list("aabb"), dtype="category"), "not of objects (str among them)"),
        (pd.date_range("2020", periods=4), "must be an array of numbers, not of datetime64"),
        ([datetime.date(2020, 1, 1)] * 4, "not of objects (date among them)"),
        (np.arange(4).astype("m8[s]"), "must be an array of numbers, not of timedelta64[s]"),
        (pd.DataFrame({"a": range(4), "b": list("wxyz")}), "not of objects (str among them)"),
        (pd.Series([True, None, True, True], dtype="boolean"), "objects (NAType among them)"),
        (np.array([1, None, 2, 3]), "not of objects (NoneType among them)"),
        ([[1, 2], [3], [4], [5]], "must be an array of numbers ("),
        (np.zeros(4, "i4,f4"), "must be an array of numbers, not of"),
        (np.zeros(4, np.longdouble), "must be an array of numbers, not of float128"),
        (jax.random.split(jax.random.key(0), 4), "must be an array of numbers, not of key<fry>"),
        (np.ma.masked_array(X, X == 0), "must be a plain array, not a masked one"),
        (3.0, "must have examples along its first axis"),
        (None, "must be an array of numbers, not of objects (NoneType among them)"),
        (np.array([[1, 2**40]] * 4), "must fit in int32, and holds 1099511627776"),
        (np.array([[1, 1e300]] * 4), "must fit in float32, and holds 1e+300"),
    ],
)
def test_what_is_no_array_of_numbers_is_named(x, words):
    with pytest.raises(ValueError, match=rf"^train\['x'\]: .*{re.escape(words)}") as raised:
        arrays.checked(splits(x=x))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "given, words",
    [
        (splits(x=X[:3]), "the arrays of train must have one length, not {'x': 3, 'y': 4}"),
        (splits(x=X[:0], y=GOOD["y"][:0]), "train: must hold examples, and is empty"),
        (splits() | {"test": [X]}, "test: must be a dict of arrays, not list"),
        (splits() | {"test": {}}, "test: must be a dict of arrays, not an empty one"),
        (splits("test", x=X[:, :1]), "test['x']: its examples must be shaped as those of train"),
        (splits("validation", y=GOOD["y"] / 2), "validation['y']: must hold numbers of the kind"),
        (splits(weight=np.array([1, 1, -1, 1])), "train['weight']: must be one finite number"),
        (splits("test", weight=np.array([1, 1, np.nan, 1])), "test['weight']: must be one finite"),
        (splits(weight=np.ones((4, 1))), "train['weight']: must be one finite number"),
    ],
)
def test_splits_that_do_not_fit_are_named(given, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        arrays.checked(given)


def test_missing_numbers_no_validation_and_arrays_of_training_alone_are_legal():
    empty = {"x": np.zeros((0, 2)), "y": np.zeros(0)}
    found = arrays.checked(splits(x=X * np.nan, teacher=X) | {"validation": empty})
    assert np.isnan(found["train"]["x"]).all()


MODULE = "task_with_labels"


@pytest.fixture
def of_labels(monkeypatch):
    """The task of a linear network whose splits are as told."""

    def build(given, loss=tasks.cross_entropy, outputs=3):
        def init(key):
            return {"w": jnp.zeros((2, outputs))}, {}

        def batch_loss(params, stats, batch, key, train):
            weight = batch.get("weight", jnp.ones(len(batch["x"])))
            return loss(batch["x"] @ params["w"], batch["y"], weight), stats

        module = types.ModuleType(MODULE)
        how = {"monitor": "loss", "maximize": False}
        module.get_task = lambda config: tasks.Task(**given, init=init, loss=batch_loss, **how)
        monkeypatch.setitem(sys.modules, MODULE, module)
        return tasks.build(Config(task=f"{MODULE}:get_task"))

    return build


@pytest.mark.parametrize("split", arrays.SPLITS)
@pytest.mark.parametrize(
    "loss, y, words",
    [
        (tasks.cross_entropy, [0, 1, 3, 1], "a class, from 0 to 2, and that of example 2 is 3"),
        (tasks.cross_entropy, [0, -1, 2, 1], "a class, from 0 to 2, and that of example 1 is -1"),
        (tasks.squared, [0, 1, 2, 9], "a class, from 0 to 2, and that of example 3 is 9"),
    ],
)
def test_labels_that_are_none_are_named_before_training(of_labels, split, loss, y, words):
    law = f"task='{MODULE}:get_task': {split}['y']: labels must be {words}"
    with pytest.raises(ValueError, match=f"^{re.escape(law)}$"):
        of_labels(splits(split, y=np.array(y)), loss)


def test_so_are_labels_of_yes_and_no_and_labels_that_are_floats(of_labels):
    signs = np.array([[1.0], [-1.0], [np.nan], [1.0]])
    given = {split: {"x": X, "y": signs} for split in arrays.SPLITS}
    with pytest.raises(ValueError, match=r"train\['y'\]: labels must be from 0 to 1, or NaN, .*1"):
        of_labels(given, tasks.binary_cross_entropy, outputs=1)
    of_labels({s: {"x": X, "y": (signs + 1) / 2} for s in given}, tasks.binary_cross_entropy, 1)
    floats = {split: GOOD | {"y": GOOD["y"] / 1} for split in arrays.SPLITS}
    with pytest.raises(ValueError, match=r"cross_entropy: y must hold whole numbers.*not float"):
        of_labels(floats)


def test_a_label_that_does_not_count_may_be_anything(of_labels):
    weight = np.array([1.0, 1.0, 1.0, 0.0])
    of_labels(splits(y=np.array([0, 1, 2, -1]), weight=weight))


def test_what_the_test_split_lacks_is_said_before_training(of_labels):
    with pytest.raises(ValueError, match=r"init and loss of one example of test: KeyError: 'y'"):
        of_labels(splits() | {"test": {"x": X}})
