"""What a run would fail of once it is traced is one sentence before anything is written."""

import dataclasses

import jax
import numpy as np
import pytest

from runs import TINY, VIEW
from samscale import cli
from samscale.config import Config
from samscale.training import compiled, folder, kept, run, traced

TASKS = """
import jax, jax.numpy as jnp, numpy as np
from samscale import tasks

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
DATA = {"x": X, "y": (X[:, 0] > 0).astype(np.int32)}

def init(key):
    return {"kernel": jax.random.normal(key, (5, 2))}, {}

def loss(params, stats, batch, key, train):
    weight = batch.get("weight", jnp.ones(len(batch["y"])))
    return tasks.cross_entropy(batch["x"] @ params["kernel"], batch["y"], weight), stats

def task(init=init, loss=loss, test=DATA, **more):
    return tasks.Task(DATA, DATA, test, init, loss, **more)

def good(config):
    return task()

def in_training(config):
    def noisy(params, stats, batch, key, train):
        if train:
            raise KeyError("noise")
        return loss(params, stats, batch, key, train)
    return task(loss=noisy)

def in_augmentation(config):
    return task(augment=lambda key, batch: {"y": batch["y"]})

def in_the_gradient(config):
    @jax.custom_vjp
    def f(x):
        return x
    f.defvjp(lambda x: (x, None), lambda _, g: (g[:1],))
    def bent(params, stats, batch, key, train):
        return loss({"kernel": f(params["kernel"])}, stats, batch, key, train)
    return task(loss=bent)

def in_the_statistics(config):
    def grows(params, stats, batch, key, train):
        return loss(params, stats, batch, key, train)[0], ({"n": jnp.zeros(3)} if train else stats)
    return task(loss=grows)

def in_evaluation(config):
    def careless(params, stats, batch, key, train):
        if "weight" in batch and not train:
            raise TypeError("no weight is known here")
        return loss(params, stats, batch, key, train)
    return task(loss=careless)

def in_the_test_data(config):
    return task(test={"x": X[:, :4], "y": DATA["y"]})

def of_many_numbers(config):
    def several(params, stats, batch, key, train):
        sums, stats = loss(params, stats, batch, key, train)
        return {**sums, "each": jnp.ones(3)}, stats
    return task(loss=several)

def in_pruning(config):
    def twice(params, stats, batch, key, train):
        if len(batch["y"]) == 20 and "seen" not in batch and train:
            raise IndexError("as pruning sees them")
        return loss(params, stats, batch, key, train)
    return task(loss=twice, augment=lambda key, batch: {**batch, "seen": batch["y"]})
"""


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A module of tasks that a command in this folder finds."""
    name = f"tasks_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    "function, words",
    [
        ("in_training", "loss of a batch of train: KeyError: 'noise'"),
        ("in_augmentation", "a training step: KeyError: 'x'"),
        ("in_the_gradient", "a training step: "),
        ("in_the_statistics", "loss: stats['n'] must stay as init makes it"),
        ("in_evaluation", "loss of a batch of validation: TypeError: no weight is known here"),
        ("in_the_test_data", "test['x']: its examples must be shaped as those of train"),
        ("of_many_numbers", "loss: sums['each'] must be one number, not float32[3]"),
        ("in_pruning", "loss of a batch of train: IndexError: as pruning sees them"),
    ],
)
def test_what_fails_only_later_is_one_sentence_and_nothing_is_written(
    named, tmp_path, capsys, function, words
):
    pruning = ', pruner="snip", sparsity=0.5' if function == "in_pruning" else ""
    knobs = f'task="{named}:{function}", batch_size=20, num_epochs=1, optimizer="sam"{pruning}'
    lines = ("from samscale.config import Config", f"def get_config(): return Config({knobs})")
    (tmp_path / "conf.py").write_text("\n".join(lines))
    assert cli.main(["samscale", "train", "--config=conf.py", f"--workdir={tmp_path / 'w'}"]) == 2
    error = capsys.readouterr().err
    assert f"task='{named}:{function}': " in error
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_a_task_that_does_not_fail_is_trained(named, tmp_path):
    config = Config(task=f"{named}:good", batch_size=20, num_epochs=1)
    run.train(config, tmp_path / "w", VIEW())
    assert folder.is_done(tmp_path / "w" / config.run_id)


def test_batches_that_pruning_cannot_have_are_refused_before_anything_is_written(monkeypatch):
    from samscale.training import feed

    monkeypatch.setattr(feed, "WINDOW_BYTES", 1)  # a batch at a time
    config = dataclasses.replace(TINY, pruner="snip", sparsity=0.5, snip_batches=3, cache=False)
    with pytest.raises(
        ValueError, match="snip_batches=3: must be at most 1, those that are in mem"
    ):
        run.ready(config)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("window", [2**26, 30_000])
def test_shapes_are_those_of_the_run(monkeypatch, cache, window):
    from samscale.training import feed
    from samscale.training.step import Knobs

    monkeypatch.setattr(feed, "WINDOW_BYTES", window)
    machine = compiled.Compiled(dataclasses.replace(TINY, cache=cache))
    knobs = Knobs.of(machine.config)
    there = machine.feed(machine.order(knobs, 0), 0)
    shapes = traced.shapes(machine.config, machine.task, machine.program)
    of = lambda tree: jax.tree.map(lambda a: (a.shape, np.dtype(a.dtype)), tree)
    assert of((shapes.examples, shapes.order)) == of((there.examples, there.order))


def test_a_program_that_is_kept_is_not_traced_again(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(kept, "place", lambda: tmp_path)
    monkeypatch.setattr(traced, "check", lambda *at: looks.append(at))
    other = dataclasses.replace(TINY, num_neurons=(9,))
    for config in (TINY, other, TINY, dataclasses.replace(other, seed=1)):
        run.ready(config)
    assert len(looks) == 2


def test_without_jit_a_run_trains_too(named, tmp_path):
    """As JAX's guide to debugging says; operation by operation, so to rounding only."""
    config = Config(task=f"{named}:good", batch_size=30, num_train_steps=1, optimizer="sgd")
    with jax.disable_jit():
        found = run.train(config, tmp_path / "without", VIEW())
    expected = run.train(config, tmp_path / "with", VIEW())
    assert found["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)
