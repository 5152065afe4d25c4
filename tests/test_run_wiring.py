"""Every knob reaches the run: what it changes is seen in the parameters that come out."""

import dataclasses
import math
import signal

import jax
import numpy as np
import pytest

from runs import TINY, VIEW
from samscale import tasks
from samscale.errors import Diverged, Interrupted
from samscale.training import checkpoint, folder, measured, record, run
from samscale.training.summary import summary

BASE = dataclasses.replace(TINY, num_epochs=2, optimizer="sgd", weight_decay=1e-2)
ADAM = dataclasses.replace(BASE, optimizer="adam", learning_rate=0.01)
CHANGES = [
    (BASE, {"warmup_steps": 5, "lr_scheduler": "cosine"}),
    (BASE, {"label_noise": 0.4}),
    (dataclasses.replace(BASE, label_noise=0.4), {"noise_seed": 3}),
    (BASE, {"split_seed": 3}),
    (BASE, {"dropout": 0.5}),
    (BASE, {"clip_norm": 0.1}),
    (BASE, {"decay_mode": "decoupled"}),
    (BASE, {"decay_on": "kernels"}),
    (BASE, {"nesterov": True}),
    (BASE, {"momentum": 0.5}),
    (BASE, {"label_smoothing": 0.2}),
    (BASE, {"batch_size": 50}),
    (ADAM, {"beta1": 0.5}),
    (ADAM, {"beta2": 0.9}),
    (ADAM, {"adam_epsilon": 0.1}),
]


def trained(config, workdir):
    run.train(config, workdir)
    return measured.load(workdir / config.run_id)[2].params


@pytest.mark.parametrize(
    "base, changes", CHANGES, ids=lambda x: "-".join(x) if isinstance(x, dict) else ""
)
def test_a_knob_changes_what_is_trained(base, changes, tmp_path):
    one, other = dataclasses.replace(base, **changes), base
    if "lr_scheduler" in changes:
        other = dataclasses.replace(base, lr_scheduler="cosine")
    one, other = (trained(config, tmp_path) for config in (one, other))
    apart = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
    assert max(apart) > 1e-4


def test_the_best_epoch_is_that_of_the_validation():
    task = tasks.build(TINY.validate())
    rows = [
        {"epoch": 1, "validation_accuracy": 0.9, "test_accuracy": 0.5},
        {"epoch": 2, "validation_accuracy": 0.8, "test_accuracy": 0.7},
    ]
    found = summary(rows, task)
    assert found["best_epoch"] == 1
    assert found["test_accuracy_at_best_validation"] == 0.5
    assert found["best_test_accuracy"] == 0.7


@pytest.mark.parametrize("maximize, best", [(True, 3), (False, 2)])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_an_epoch_whose_metric_is_not_finite_is_never_the_best(maximize, best, odd):
    task = tasks.build(TINY.validate())._replace(monitor="f1", maximize=maximize)
    values = {1: odd, 2: 0.5, 3: 0.8, 4: 0.7, 5: odd}
    lines = [{"epoch": e, "validation_f1": v, "test_f1": v} for e, v in values.items()]
    found = summary(lines, task)
    assert (found["best_epoch"], found["best_test_f1"]) == (best, values[best])
    assert summary([lines[0], lines[4]], task) == {}


class Full:
    """A file on a disk that takes half of what it is given."""

    def __init__(self, file):
        self.file = file

    def write(self, line):
        return self.file.write(line[: len(line) // 2])

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_line_that_the_disk_does_not_take_whole_is_not_there(tmp_path):
    written = record.Record(tmp_path, 0)
    first = {"kind": "epoch", "step": 1}
    written.write(first)
    disk, written._file = written._file, Full(written._file)
    with pytest.raises(OSError, match="No space left on device") as raised:
        written.write({"kind": "final", "step": 2})
    assert raised.value.filename == str(tmp_path / record.NAME)
    assert record.read(tmp_path) == [first]
    written._file = disk
    written.write({"kind": "final", "step": 2})
    assert len(record.read(tmp_path)) == 2
    written.close()


def test_a_record_that_lost_its_epochs_is_said(tmp_path):
    config = dataclasses.replace(TINY, num_epochs=4)
    run.train(config, tmp_path)
    path = tmp_path / config.run_id
    (path / folder.DONE).unlink()
    (path / record.NAME).unlink()
    with pytest.raises(OSError, match=r"metrics\.jsonl: missing; put it back"):
        run.train(config, tmp_path)


@pytest.mark.parametrize(
    "again, words",
    [
        (True, "the same command goes on"),
        (False, "the same command, with restore_checkpoint=True,"),
    ],
)
def test_a_run_that_is_stopped_says_what_goes_on(again, words, tmp_path):
    class Stops(VIEW):
        def update(self, step, values):
            signal.raise_signal(signal.SIGTERM)

    config = dataclasses.replace(BASE, num_epochs=50, restore_checkpoint=again)
    with pytest.raises(Interrupted, match=words):
        run.train(config, tmp_path, Stops())


def test_a_run_whose_last_step_breaks_it_has_diverged(tmp_path):
    config = dataclasses.replace(
        BASE, learning_rate=1e38, weight_decay=0.0, lr_scheduler="constant", num_train_steps=1
    )
    with pytest.raises(Diverged, match="a loss of the evaluation is not finite at step 1"):
        run.train(config, tmp_path)
    assert record.read(tmp_path / config.run_id)[-1] == {"kind": "diverged", "step": 1}
    assert not checkpoint.step(tmp_path / config.run_id)
