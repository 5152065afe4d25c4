"""Parameters along the way, and the measure that needs them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from runs import TINY, VIEW, killed_after_saving, rows
from samscale import cli
from samscale.flatness import path as between
from samscale.training import measured, program, record, run, snapshots

ALL = dataclasses.replace(TINY, snapshot_every=1)
PATH = dataclasses.replace(TINY, flatness_every=2, flatness_measures=("path",))


def equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def kept(folder, like):
    return [snapshots.load(folder, epoch, like) for epoch in snapshots.epochs(folder)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("all")
    run.train(ALL, workdir, VIEW())
    return workdir / ALL.run_id


def test_the_first_is_the_initialization_and_the_last_the_end(trained):
    config, task, state = measured.load(trained)
    first, *_, last = kept(trained, state.params)
    equal(last, state.params)
    equal(first, jax.jit(lambda: program.initial(config, task, config.seed))()[0])
    assert snapshots.epochs(trained) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("every", "wanted"), [(0, []), (1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (9, [0, 5])]
)
def test_every_so_many_epochs_and_the_last_are_kept(every, wanted):
    config = dataclasses.replace(TINY, snapshot_every=every)
    assert [epoch for epoch in range(6) if snapshots.due(config, epoch, last=5)] == wanted


def test_a_measure_of_the_way_keeps_the_epoch_before_it():
    config = dataclasses.replace(PATH, flatness_every=3)
    assert [epoch for epoch in range(9) if snapshots.due(config, epoch, last=8)] == [2, 5, 7]


def test_keeping_changes_neither_the_run_nor_its_name(trained, whole):
    assert trained.name == whole.name
    assert rows(trained) == rows(whole)


@pytest.mark.parametrize("when", [1, 2, 4])
def test_a_run_that_was_stopped_keeps_and_measures_the_same(tmp_path, monkeypatch, when):
    config = dataclasses.replace(PATH, flatness_every=1)
    run.train(config, tmp_path / "whole", VIEW())
    with killed_after_saving(when, monkeypatch):
        run.train(config, tmp_path, VIEW())
    run.train(config, tmp_path, VIEW())
    stopped, through = tmp_path / config.run_id, tmp_path / "whole" / config.run_id
    assert rows(stopped) == rows(through)
    assert "flatness_beta_hat" in record.read(stopped)[-1]
    like = measured.load(through)[2].params
    for one, other in zip(kept(stopped, like), kept(through, like), strict=True):
        equal(one, other)


def test_the_measure_is_that_of_the_two_snapshots(trained, tmp_path):
    run.train(PATH, tmp_path, VIEW())
    config, task, state = measured.load(trained)
    here = measured.point(config, task, state)
    *_, before, last = kept(trained, state.params)
    wanted = between.along(here.losses, before, last, here.data)
    for row in (record.read(tmp_path / PATH.run_id)[-1], by_command(trained)):
        assert row["flatness_beta_hat"] == pytest.approx(wanted.smoothness, rel=1e-4)
        assert row["flatness_alpha_hat"] == pytest.approx(wanted.pl, rel=1e-4)


def by_command(folder):
    assert cli.main(["samscale", "flatness", str(folder), "--measure=path"]) == 0
    found = json.loads((folder / "flatness.json").read_text())
    return {f"flatness_{name}": value for name, value in found.items()}


def test_without_snapshots_the_measure_is_refused_by_name_and_left_out_of_all(whole, capsys):
    words = ["samscale", "flatness", str(whole)]
    assert cli.main([*words, "--measure=layers,path"]) == 2
    assert "measure='path': the parameters of an epoch ago must be kept" in capsys.readouterr().err


def test_replicas_keep_what_runs_alone_keep(trained, tmp_path):
    configs = [dataclasses.replace(ALL, seed=seed) for seed in (0, 1)]
    run.train_together(configs, tmp_path, VIEW())
    like = measured.load(trained)[2].params
    for one, other in zip(kept(trained, like), kept(tmp_path / ALL.run_id, like), strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other
        )


def test_a_damaged_snapshot_is_named(trained, tmp_path):
    like = measured.load(trained)[2].params
    place = tmp_path / "snapshots" / "epoch-000001.msgpack"
    place.parent.mkdir()
    place.write_bytes(b"torn")
    with pytest.raises(OSError, match=r"epoch-000001\.msgpack: damaged"):
        snapshots.load(tmp_path, 1, like)
    assert snapshots.load(tmp_path, 2, like) is None
