"""What tests of runs share: a small run, and what of its folder must not change."""

import contextlib

import jax
import numpy as np
import pytest

from samscale.config import Config
from samscale.training import checkpoint, files, leaves, progress, record, run

TINY = Config(num_neurons=(8,), num_epochs=3, batch_size=100, checkpoint_seconds=0.0)
VIEW = progress.Silent


@contextlib.contextmanager
def killed_after_saving(times, monkeypatch):
    """A run inside stops as if it was killed right after it has saved so many times."""
    saves = []

    def save_and_die(path, tree, save=checkpoint.save):
        save(path, tree)
        saves.append(1)
        if len(saves) == times:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            yield


def rows(path):
    """The record without what a clock says."""
    return [{k: v for k, v in row.items() if k not in run.TIMED} for row in record.read(path)]


def bits(path):
    return (path / checkpoint.NAME).read_bytes()


def saved(path):
    """What a checkpoint holds, but for the seconds and for the record that holds them too."""
    tree = leaves.read(files.read_sealed(path / checkpoint.NAME))
    for name in [name for name in tree if name.startswith(("['seconds']", "['record']"))]:
        del tree[name]
    return tree


def written(path, lines):
    """A record of these lines in a folder that is made for it."""
    path.mkdir()
    found = record.Record(path)
    for line in lines:
        found.write(line)
    found.close()


def same(first, second):
    assert rows(first) == rows(second)
    jax.tree.map(np.testing.assert_array_equal, saved(first), saved(second))
