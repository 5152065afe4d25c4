"""Programs kept on disk: found by whoever would make the same, and by nobody else."""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import runs
from samscale import data, tasks
from samscale.config import Config
from samscale.data.dataset import take
from samscale.training import compiled, kept, run

X = jnp.linspace(0, 1, 5)


def start(traced, name="f"):
    """A program as a new process would find it."""
    return kept.Kept(lambda *args: traced(*args), name)


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """A function for ``kept.Kept`` that notes the shape of what it is traced with."""
    monkeypatch.setattr(kept, "place", lambda: tmp_path / "whole")
    shapes = []

    def function(tree, shift):
        shapes.append(tree["x"].shape)
        # sums and sorts are what XLA may fail to serialize
        return {"y": jnp.sort(jnp.sin(tree["x"]) + shift)[::-1], "n": None}, tree["x"].sum()

    function.shapes = shapes
    return function


def test_a_second_start_finds_the_program_and_traces_nothing(traced):
    first = start(traced)({"x": X}, 1.0)
    second = start(traced)({"x": X}, 1.0)
    assert len(traced.shapes) == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_program_serves_all_numbers_of_its_shapes_and_no_others(traced):
    program = start(traced)
    program({"x": X}, 1.0)
    program({"x": 2 * X}, 2.0)
    (_, total) = start(traced)({"x": 3 * X}, 3.0)
    np.testing.assert_allclose(total, 3 * X.sum(), rtol=1e-6)
    assert traced.shapes == [(5,)]
    program({"x": X[:3]}, 1.0)
    assert traced.shapes == [(5,), (3,)]


OTHERS = {
    "sources": lambda patch: patch.setattr(kept, "_sources", lambda: "edited"),
    "versions": lambda patch: patch.setattr(kept, "versions", lambda: {"jax": "another"}),
    "processor": lambda patch: patch.setattr(kept, "_processor", lambda: "flags: fewer"),
    "flags": lambda patch: patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " "),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_made_from_something_else_is_made_anew(traced, monkeypatch, what):
    start(traced)({"x": X}, 1.0)
    OTHERS[what](monkeypatch)
    start(traced)({"x": X}, 1.0)
    assert len(traced.shapes) == 2


def test_another_name_or_setting_of_jax_is_another_program(traced):
    start(traced)({"x": X}, 1.0)
    start(traced, "g")({"x": X}, 1.0)
    with jax.default_matmul_precision("highest"):
        start(traced)({"x": X}, 1.0)
    assert len(traced.shapes) == 3


@pytest.mark.parametrize("damage", ["a bit", "the end"])
def test_a_damaged_program_is_made_anew_and_mended(traced, tmp_path, damage):
    whole = start(traced)({"x": X}, 1.0)
    (path,) = (p for p in (tmp_path / "whole").iterdir() if p.suffix != ".name")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # machine code: a bit that nobody checked might kill
    path.write_bytes(content[: len(content) if damage == "a bit" else 1000])
    again = start(traced)({"x": X}, 1.0)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    start(traced)({"x": X}, 1.0)
    assert len(traced.shapes) == 2
    assert len(list((tmp_path / "whole").iterdir())) == 2


def test_programs_that_turn_out_the_same_are_compiled_once(traced, tmp_path, monkeypatch):
    start(traced)({"x": X}, 1.0)
    monkeypatch.setattr(kept, "_sources", lambda: "a comment was edited")
    compiled = []
    monkeypatch.setattr(kept, "_serialized", compiled.append)
    start(traced)({"x": X}, 1.0)
    start(traced, "g")({"x": X}, 1.0)
    assert len(traced.shapes) == 3
    assert compiled == []
    suffixes = sorted(path.suffix for path in (tmp_path / "whole").iterdir())
    assert suffixes == ["", ".name", ".name", ".name"]


def test_where_nothing_can_be_written_programs_run_all_the_same(traced, tmp_path):
    (tmp_path / "whole").write_text("a file, where the folder would be")
    (_, total) = start(traced)({"x": X}, 1.0)
    np.testing.assert_allclose(total, X.sum(), rtol=1e-6)


def test_a_program_that_xla_has_kept_before_is_kept_whole(traced, tmp_path):
    """Serialized again after a reading from XLA's cache, it would fail when called."""
    first = jax.jit(traced).lower({"x": X}, 1.0).compile()({"x": X}, 1.0)
    jax.clear_caches()
    start(traced)({"x": X}, 1.0)
    second = start(traced)({"x": X}, 1.0)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_results_may_overwrite_what_is_donated(traced):
    for _ in range(2):  # as it was compiled, and as it was kept
        x = jnp.arange(4.0)
        program = kept.Kept(lambda x: x + 1, "add", donate=(0,))
        np.testing.assert_array_equal(program(x), [1, 2, 3, 4])
        assert x.is_deleted()
        assert program.memory < 2 * x.nbytes + 64


def test_what_a_program_is_made_from_is_in_its_name():
    base = Config(dataset="digits").validate()
    task = tasks.build(base)
    less = task._replace(train={name: a[:-1] for name, a in task.train.items()})
    wider = dataclasses.replace(base, num_neurons=(7,))
    names = [
        kept.name(base, task, "init"),
        kept.name(base, less, "init"),
        kept.name(base, task, "order"),
        kept.name(wider, task, "init"),
    ]
    assert len(set(names)) == 4
    assert kept.name(dataclasses.replace(base, seed=5), task, "init") == names[0]  # a number


def test_what_is_of_the_users_own_is_not_kept_for_its_sources_are_not_known(monkeypatch):
    base = Config(dataset="digits").validate()
    task = tasks.build(base)
    assert kept.name(dataclasses.replace(base, task="mine:task"), task, "init") is None
    monkeypatch.setitem(data.DATASETS, "mine", lambda **_: None)
    assert kept.name(dataclasses.replace(base, dataset="mine"), task, "init") is None


def test_other_data_of_the_same_name_are_not_trained_by_the_program_of_the_first(
    tmp_path, monkeypatch
):
    """The number of examples is part of the program, though not every argument shows it."""
    read = data.DATASETS["digits"]
    config = dataclasses.replace(runs.TINY, num_epochs=1)
    found = {}
    for n in (1400, 900):
        train, test, *rest = read()
        few = functools.partial(lambda *found, **_: found, take(train, slice(n)), test, *rest)
        few.__module__ = read.__module__
        monkeypatch.setitem(data.DATASETS, "digits", few)
        for place in (tmp_path / "whole", None):
            monkeypatch.setattr(kept, "place", lambda place=place: place)
            compiled._COMPILED.clear()
            found[n, place] = run.train(config, tmp_path / f"{n} {place is None}", runs.VIEW())
        assert found[n, None]["test_loss"] == found[n, tmp_path / "whole"]["test_loss"]
    assert found[1400, None]["step"] > found[900, None]["step"]
