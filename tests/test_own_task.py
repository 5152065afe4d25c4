"""The worked example of a task of one's own, and the page that explains it."""

import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from samscale import cli, own_task, tasks
from samscale.cli.studies import load_study
from samscale.config import Config
from samscale.sharpness import PRESETS
from samscale.study import cells

PAGE = pathlib.Path("docs/own_task.md").read_text()
STUDY = pathlib.Path("examples/own_study.py")
KEY = jax.random.key(0)


def example(**knobs):
    return tasks.build(Config(task="examples.own_task:get_task", **knobs))


def test_the_command_of_the_page_ends_with_a_report(tmp_path):
    (line,) = re.findall(r"^    (samscale study .*)$", PAGE, re.MULTILINE)
    words = [word for word in shlex.split(line)[1:] if not word.startswith("--workdir=")]
    # -P: like the installed command, which does not look for modules in the current folder
    script = "import sys; from samscale import cli; sys.exit(cli.main(['samscale', *sys.argv[1:]]))"
    command = [sys.executable, "-P", "-c", script, *words, f"--workdir={tmp_path}", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (report,) = tmp_path.glob("*/report.html")
    assert "gated network on noisy waveforms" in report.read_text()
    assert not list(tmp_path.glob("*/failed.json"))


def test_the_code_of_the_page_is_a_task():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(compile(code, "own_task.md", "exec"), names)
    task = names["get_task"](Config(num_filters=4))
    assert isinstance(task, tasks.Task)
    params, stats = jax.jit(task.init)(KEY)
    sums, _ = task.loss(params, stats, task.test, KEY, False)
    assert sums["count"] == len(task.test["y"])


def test_the_loss_of_a_batch_is_the_sum_over_its_examples_and_padding_adds_nothing():
    task = example(num_filters=4)
    loss = jax.jit(lambda batch: task.loss(*task.init(KEY), batch, KEY, False)[0])
    batch = {name: array[:5] for name, array in task.train.items()}
    alone = [loss({name: array[i : i + 1] for name, array in batch.items()}) for i in range(5)]
    weight = np.float32([1, 1, 1, 1, 1, 0, 0])
    padded = {name: np.concatenate([a, a[:2]]) for name, a in batch.items()} | {"weight": weight}
    padded["x"][5:] = np.iinfo(np.int16).max
    for name, value in loss(batch).items():
        np.testing.assert_allclose(value, sum(sums[name] for sums in alone), rtol=1e-5)
        np.testing.assert_allclose(value, loss(padded)[name], rtol=1e-5)
    assert loss(padded)["count"] == 5


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_every_example_is_in_one_split_and_the_test_set_never_moves(fraction):
    from examples.own_task import NUM_EXAMPLES, NUM_TEST

    task = example(validation_fraction=fraction)
    splits = (task.train, task.validation, task.test)
    assert [len(split["y"]) for split in splits] == [
        (NUM_EXAMPLES - NUM_TEST) * (1 - fraction),
        (NUM_EXAMPLES - NUM_TEST) * fraction,
        NUM_TEST,
    ]
    found = np.concatenate([split["x"] for split in splits])
    assert len(np.unique(found, axis=0)) == NUM_EXAMPLES
    for knobs in ({"seed": 1}, {"split_seed": 1}):
        np.testing.assert_array_equal(example(**knobs).test["x"], task.test["x"])


def test_which_examples_are_held_out_follows_the_split_seed_and_not_the_seed():
    held = [example(**knobs).validation["x"] for knobs in ({}, {"seed": 1}, {"split_seed": 1})]
    assert np.array_equal(held[0], held[1])
    assert not np.array_equal(held[0], held[2])


def test_the_knob_of_the_study_is_the_width_of_the_network():
    sizes = []
    for width in (8, 64):
        params, _ = jax.eval_shape(example(num_filters=width).init, KEY)
        sizes.append(sum(w.size for w in jax.tree.leaves(params)))
    assert sizes[0] < sizes[1]


def test_a_study_whose_task_is_not_found_is_one_sentence(tmp_path, capsys):
    lost = STUDY.read_text().replace('task="examples.own_task', 'task="no_such_folder.own_task')
    (tmp_path / "lost.py").write_text(lost)
    words = ["study", str(tmp_path / "lost.py"), f"--workdir={tmp_path / 'w'}"]
    assert cli.main(["samscale", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "task='no_such_folder.own_task:get_task': must be module:function" in err
    assert not (tmp_path / "w").exists()


def test_the_example_study_of_the_family_is_legal():
    study = load_study("examples/sam_family.py").validate()
    assert {cell.config.optimizer for cell in cells(study)} == {"sgd", *PRESETS} - {"sam_on"}


ROW = {"x": np.zeros((4, 3), "float32"), "y": np.arange(4)}


def with_arrays(**entries):
    task = tasks.Task(ROW | entries, ROW, ROW, None, None)
    return own_task.with_arrays(task).train


@pytest.mark.parametrize(
    "value",
    [
        pd.Series([3, 2, 1, 0], index=[9, 8, 7, 6]),
        [3, 2, 1, 0],
        (3, 2, 1, 0),
        jnp.arange(3, -1, -1),
        pd.Series([3, 2, 1, 0], dtype="Int64"),
        np.arange(3, -1, -1, dtype=object).astype("uint64"),
    ],
)
def test_numbers_in_any_container_are_taken_in_their_order(value):
    found = with_arrays(y=value)["y"]
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [3, 2, 1, 0]
    assert isinstance(with_arrays(x=pd.DataFrame(ROW["x"]))["x"], np.ndarray)


@pytest.mark.parametrize(
    "value, words",
    [
        (["a", "b", "c", "d"], r"train\['x'\] must be an array of numbers, not of text"),
        (pd.Series(list("abcd")), r"train\['x'\] must be an array of numbers, not of "),
        (pd.date_range("2026-01-01", periods=4), "not of dates"),
        (np.zeros(4, "timedelta64[s]"), "not of durations"),
        ([b"a"] * 4, "not of bytes"),
        (np.array([None] * 4), "not of objects"),
        (np.zeros(4, [("a", int)]), "must be an array of numbers, not of "),
        ([[1], [1, 2], [1], [1]], "must be an array of numbers"),
        (jax.random.split(KEY, 4), "must be an array of numbers"),
        (np.ma.masked_equal([1, 2, 3, 4], 2), "and has masked ones"),
        (3, "must have its examples along the first axis"),
        (np.zeros((3, 3)), r"must have one length, not \{'x': 3, 'y': 4\}"),
        (np.array([2**31, 0, 0, 0]), "must fit into int32, and holds 2147483648"),
        (np.array([1e39, 0, 0, 0]), r"must fit into float32, and holds 1e\+39"),
    ],
)
def test_arrays_that_are_no_numbers_are_named(value, words):
    with pytest.raises(ValueError, match=words):
        with_arrays(x=value)


def test_splits_that_are_no_dicts_of_names_are_named():
    for split, words in ((np.zeros(3), "train must be a dict of arrays"), ({3: [1]}, "not 3")):
        with pytest.raises(ValueError, match=words):
            own_task.with_arrays(tasks.Task(split, ROW, ROW, None, None))
