"""``samscale landscape``: pictures of a run, and of the ways of several."""

import dataclasses
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

from runs import TINY, VIEW
from samscale import cli
from samscale.flatness import paths
from samscale.study import landscape
from samscale.study.pictures import specification
from samscale.training import run

KEPT = dataclasses.replace(TINY, snapshot_every=1)


def command(*words):
    return cli.main(["samscale", "landscape", *map(str, words)])


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folders of SGD and SAM from one initialization, with all snapshots."""
    workdir, folders = tmp_path_factory.mktemp("pair"), []
    for name in ("sgd", "sam"):
        config = dataclasses.replace(KEPT, optimizer=name)
        run.train(config, workdir, VIEW())
        folders.append(workdir / config.run_id)
    return folders


@pytest.fixture(scope="module")
def walks(pair):
    return [landscape.walk(folder, examples=50) for folder in pair]


def test_ways_begin_at_one_initialization_and_end_at_their_runs(walks):
    first, second = walks
    assert first.epochs == second.epochs == [0, 1, 2, 3]
    jax.tree.map(np.testing.assert_array_equal, first.params[0], second.params[0])
    jax.tree.map(np.testing.assert_array_equal, first.params[-1], first.point.params)


def test_without_snapshots_a_way_is_its_two_ends(whole, pair):
    found = landscape.walk(whole, examples=50)
    assert found.epochs == [0, 3]
    kept = landscape.walk(pair[1], examples=50)
    for own, other in zip(found.params, (kept.params[0], kept.params[-1]), strict=True):
        jax.tree.map(np.testing.assert_array_equal, own, other)


def test_a_pruned_run_begins_pruned(tmp_path):
    config = dataclasses.replace(TINY, num_epochs=1, pruner="random", sparsity=0.5)
    run.train(config, tmp_path, VIEW())
    found = landscape.walk(tmp_path / config.run_id, examples=50)
    zeros = [sum(int((w == 0).sum()) for w in jax.tree.leaves(p)) for p in found.params]
    assert zeros[0] >= zeros[1] > 100


def test_directions_of_a_pruned_run_are_pruned_and_as_long_as_its_filters(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, num_epochs=1, pruner="random", sparsity=0.5)
    run.train(config, tmp_path, VIEW())
    point = landscape.walk(tmp_path / config.run_id, examples=50).point
    seen = []
    monkeypatch.setattr(
        landscape.landscape, "plane", lambda losses, w, d, *at: seen.extend(d) or np.zeros((2, 2))
    )
    landscape.around(point, landscape.key(0), cells=2)
    w = np.asarray(point.params["Dense_0"]["kernel"])
    for direction in seen:
        d = np.asarray(direction["Dense_0"]["kernel"])
        assert (d[w == 0] == 0).all()
        np.testing.assert_allclose((d**2).sum(0), (w**2).sum(0), rtol=1e-5)


def test_the_plane_shows_the_loss_where_the_first_run_ends(walks):
    grid, walked, share = landscape.trajectories(walks, cells=3)
    ends = walked[walked["epoch"] == 3].set_index("run")
    assert ends.loc[walks[0].name, ["x", "y"]].abs().max() < 1e-6
    assert 0.5 < share <= 1
    assert len(grid) == 9
    for name in ("x", "y"):  # the ways lie within
        assert grid[name].min() < walked[name].min() <= walked[name].max() < grid[name].max()
    point = walks[0].point
    here = float(point.losses(point.params, point.data).mean())
    close = landscape.around(point, landscape.key(0), reach=1e-6, cells=3)
    np.testing.assert_allclose(close["loss"], here, rtol=1e-4)


def test_between_ends_the_straight_way_has_the_barrier_it_shows(walks):
    table, barriers = landscape.between(*walks, points=5)
    a, b = (w.params[-1] for w in walks)
    point = walks[0].point
    at = np.linspace(0, 1, 5)
    wanted = paths.interpolation(point.losses, a, b, point.data, at)
    straight = table[table["way"] == "straight"]
    np.testing.assert_allclose(straight["loss"], wanted, rtol=1e-6)
    assert barriers["straight"] == pytest.approx(
        float(paths.barrier(point.losses, a, b, point.data, at))
    )


def test_a_way_to_ones_own_permutation_is_flat_once_units_are_matched(walks):
    first = walks[0]
    turned = paths.permuted(first.params[-1], [np.arange(8)[::-1]])
    second = first._replace(params=[*first.params[:-1], turned])
    table, barriers = landscape.between(first, second, points=5)
    assert set(table["way"]) == {"straight", "straight, units matched"}
    assert barriers["straight, units matched"] < 1e-5 < 1e-2 < barriers["straight"]


def test_units_that_match_as_they_are_are_said_to(walks, monkeypatch, pair, capsys):
    monkeypatch.setattr(paths, "aligned", lambda a, b: b)
    table, barriers = landscape.between(*walks, points=5)
    assert set(table["way"]) == {"straight"}
    words = "straight, units matched (they match as they are)"
    assert barriers == {"straight": barriers["straight"], words: barriers["straight"]}
    assert command(*pair, "--examples=50", "--cells=3") == 0
    assert f"barrier, {words}: " in capsys.readouterr().out


def test_units_take_their_pruned_weights_with_them(tmp_path):
    """The mask is the first run's: where units of the second have moved, it is not theirs."""
    walks = []
    for name in ("sgd", "sam"):
        config = dataclasses.replace(TINY, optimizer=name, pruner="random", sparsity=0.5)
        run.train(config, tmp_path, VIEW())
        walks.append(landscape.walk(tmp_path / config.run_id, examples=50))
    first, second = walks
    turned = paths.permuted(second.params[-1], [np.arange(8)[::-1]])
    point = first.point
    own = float(point.losses(second.params[-1], point.data).mean())
    masked = float(point.losses(turned, point.data).mean())
    assert abs(masked - own) > 0.01
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "aligned", lambda a, b: turned)
        table, _ = landscape.between(first, second, points=3, curve_steps=2, key=landscape.key(0))
    ends = table[table["t"] == 1].set_index("way")["loss"]
    assert set(ends.index) == {"straight", "straight, units matched", "Bezier curve"}
    np.testing.assert_allclose(ends, own, rtol=1e-5)


def test_numbers_that_are_not_finite_are_not_taken_for_another_network(walks):
    first, second = walks
    broken = jax.tree.map(lambda w: w * np.nan, second.params[-1])
    with pytest.raises(ValueError, match="numbers must be finite"):
        landscape.between(first, second._replace(params=[*second.params[:-1], broken]), points=3)


def test_a_network_that_is_no_mlp_has_no_units_to_match(walks, monkeypatch):
    monkeypatch.setattr(paths, "is_mlp", lambda params: False)
    assert set(landscape.between(*walks, points=3)[0]["way"]) == {"straight"}
    monkeypatch.undo()
    assert paths.is_mlp(walks[0].params[-1])
    assert not paths.is_mlp({"conv_init": walks[0].params[-1]["Dense_0"]})


def test_the_density_integrates_to_one(walks):
    table = landscape.density(walks[0].point, landscape.key(0), steps=20, probes=1)
    assert np.trapezoid(table["density"], table["eigenvalue"]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "SVG"])
def test_a_run_alone_is_a_picture_in_its_folder_or_where_it_is_wanted(pair, tmp_path, suffix):
    out = tmp_path / f"alone.{suffix}"
    assert command(pair[0], "--examples=50", "--cells=3", f"--out={out}") == 0
    beginning = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix.lower()]
    assert out.read_bytes().startswith(beginning)


def test_two_runs_are_a_picture_with_barriers_in_words(pair, capsys):
    assert command(*pair, "--examples=50", "--cells=3") == 0
    shown = capsys.readouterr().out
    assert "barrier, straight: " in shown
    svg = (pair[0] / "landscape.svg").read_text()
    assert all(folder.name in svg for folder in pair)


def test_one_point_of_the_grid_is_one_rectangle():
    grid = landscape._grid(np.arange(2.0), np.arange(3.0), np.arange(6.0))
    pd.testing.assert_frame_equal(
        grid[grid["loss"] == 4.0].reset_index(drop=True),
        pd.DataFrame({"x": [1.0], "y": [1.0], "loss": [4.0]}),
    )


WRONG = {
    "--out=a.gif": "out='a.gif': the suffix must be one of svg, png, pdf",
    "--cells=1": "cells=1: must be at least 2 and at most 300",
    "--cells=99999999": "cells=99999999: must be at least 2 and at most 300",
    "--examples=-1": f"examples=-1: must be at least 0 (all) and at most {2**31 - 1}",
    "--reach=0": "reach=0.0: must be finite and greater than 0",
    "--reach=inf": "reach=inf: must be finite and greater than 0",
    "--out=absent/a.svg": "out='absent/a.svg': must be in a folder that is there",
    "--seed=-1": f"seed=-1: must be between 0 and {2**32 - 1}",
    "--curve": "curve: takes two runs, not 1",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_costs_one_sentence(words, whole, capsys):
    assert command(whole, words) == 2
    assert capsys.readouterr().err == f"error: {WRONG[words]}\n"


def test_no_run_and_another_network_are_refused_by_name(whole, tmp_path, capsys):
    assert command(tmp_path) == 2
    assert "must be a run folder" in capsys.readouterr().err
    other = dataclasses.replace(TINY, num_neurons=(5,), num_epochs=1)
    run.train(other, tmp_path, VIEW())
    assert command(whole, tmp_path / other.run_id, "--cells=2") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {other.run_id}, as {whole.name}: ")
    assert "its shape must be" in error
    assert command(whole, whole) == 2
    assert capsys.readouterr().err == "error: runs: name each folder once\n"


def test_snapshots_after_the_checkpoint_are_not_part_of_the_way(pair, tmp_path):
    copy = tmp_path / pair[0].name
    shutil.copytree(pair[0], copy)
    later = copy / "snapshots" / "epoch-000009.msgpack"
    later.write_bytes((copy / "snapshots" / "epoch-000001.msgpack").read_bytes())
    found = landscape.walk(copy, examples=50)
    assert found.epochs == [0, 1, 2, 3]
    jax.tree.map(np.testing.assert_array_equal, found.params[-1], found.point.params)


def test_runs_that_are_pruned_otherwise_share_no_loss(tmp_path, capsys):
    folders = []
    for seed in (1, 2):
        config = dataclasses.replace(TINY, num_epochs=1, pruner="random", sparsity=0.5, seed=seed)
        run.train(config, tmp_path, VIEW())
        folders.append(tmp_path / config.run_id)
    assert command(*folders, "--examples=50", "--cells=3") == 2
    assert "must be pruned as" in capsys.readouterr().err


def test_charts_of_more_rows_than_altairs_limit_are_drawn():
    side = np.linspace(0, 1, 80)
    grid = landscape._grid(side, side, np.ones((80, 80)))
    assert specification(landscape.plane_chart(grid, "many"))["datasets"]
