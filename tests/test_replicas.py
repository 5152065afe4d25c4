"""Replicas: each is the run alone, to the bit, and ends for reasons of its own."""

import dataclasses
import signal
import time

import jax
import numpy as np
import pytest

from runs import TINY, VIEW, killed_after_saving, rows, same
from samscale.config import Config
from samscale.errors import Diverged, Interrupted
from samscale.study import cells, execute, repeated, scientific
from samscale.study import conduct as conductor
from samscale.training import checkpoint, compiled, folder, kept, record, run
from tiny_study import tiny

SIZE = scientific("num_neurons", [TINY.num_neurons])
RADII = [dataclasses.replace(TINY, rho=rho, seed=seed) for seed in (0, 1) for rho in (0.02, 0.2)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "log_every_steps": 7},
        {"sam_groups": 4},
        {"pruner": "snip", "sparsity": 0.5},
        {"dropout": 0.3, "base_optimizer": "adam", "learning_rate": 1e-3},
        {"optimizer": "looksam", "half_precision": True},
        {"optimizer": "esam", "label_noise": 0.3, "num_neurons": (16, 8)},
        {"validation_fraction": 0.0, "num_train_steps": 17},
    ],
)
def test_a_replica_is_the_run_alone(tmp_path, changes):
    configs = [dataclasses.replace(config, **changes) for config in RADII]
    together = run.train_together(configs, tmp_path / "together", VIEW())
    for config, final in zip(configs, together, strict=True):
        run.train(config, tmp_path / "alone", VIEW())
        path = tmp_path / "together" / config.run_id
        assert folder.is_done(path)
        assert record.read(path)[-1] == final
        same(path, tmp_path / "alone" / config.run_id)


def test_replicas_differ_where_their_numbers_do(tmp_path):
    together = run.train_together(RADII, tmp_path, VIEW())
    assert len({final["test_loss"] for final in together}) == len(RADII)


def test_the_seconds_of_replicas_are_shares_of_those_that_passed(tmp_path):
    long = dataclasses.replace(TINY, num_epochs=60, checkpoint_seconds=30.0)
    configs = [dataclasses.replace(long, seed=seed) for seed in range(8)]
    others = [dataclasses.replace(config, rho=0.5) for config in configs]
    run.train_together(others, tmp_path, VIEW())  # compiles
    begin = time.perf_counter()
    together = run.train_together(configs, tmp_path, VIEW())
    assert sum(final["seconds"] for final in together) <= time.perf_counter() - begin
    alone = run.train(dataclasses.replace(configs[0], seed=9), tmp_path, VIEW())
    assert {final["memory"] for final in together} == {alone["memory"]}


def test_what_fails_for_all_is_tried_one_by_one(tmp_path, monkeypatch):
    def train(configs, workdir, view, whole=run.train_together):
        if len(configs) > 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return whole(configs, workdir, view)

    monkeypatch.setattr(run, "train_together", train)
    found = list(execute.run_cells(RADII[:2], tmp_path, 2))
    assert [outcome.status for outcome in found] == ["done", "done"]


def test_a_replica_that_diverges_stops_no_other(tmp_path):
    rates = [0.1, 1e9, 0.05]
    configs = [
        dataclasses.replace(TINY, loss="squared", learning_rate=rate, optimizer="sgd")
        for rate in rates
    ]
    first, bad, last = run.train_together(configs, tmp_path, VIEW())
    assert isinstance(bad, Diverged)
    assert "not finite at step" in str(bad)
    assert first["epoch"] == last["epoch"] == TINY.num_epochs
    assert [folder.is_done(tmp_path / c.run_id) for c in configs] == [True, False, True]
    same(tmp_path / configs[2].run_id, _alone(configs[2], tmp_path))


def test_a_disk_that_refuses_the_last_line_leaves_no_run_done(tmp_path, monkeypatch):
    def write(self, row, whole=record.Record.write):
        if row["kind"] == "final":
            raise OSError(28, "No space left on device")
        whole(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(record.Record, "write", write)
        with pytest.raises(OSError, match="No space left"):
            run.train_together(RADII[:2], tmp_path, VIEW())
    assert not any(folder.is_done(tmp_path / config.run_id) for config in RADII[:2])
    assert all(
        final["kind"] == "final" for final in run.train_together(RADII[:2], tmp_path, VIEW())
    )


def test_one_that_is_done_or_held_elsewhere_is_left_out(tmp_path):
    run.train(RADII[0], tmp_path, VIEW())
    before = rows(tmp_path / RADII[0].run_id)
    with folder.opened(RADII[1], tmp_path):
        found = run.train_together(RADII, tmp_path, VIEW())
    assert isinstance(found[1], BlockingIOError)
    assert rows(tmp_path / RADII[0].run_id) == before
    assert all(folder.is_done(tmp_path / RADII[i].run_id) for i in (0, 2, 3))
    assert not folder.is_done(tmp_path / RADII[1].run_id)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_replica_does_not_depend_on_how_many_there_are_nor_on_its_place(tmp_path, number):
    configs = [dataclasses.replace(RADII[0], seed=seed) for seed in range(8)]
    run.train_together(configs, tmp_path / "eight", VIEW())
    run.train_together(configs[number - 1 :: -1], tmp_path / "few", VIEW())
    for config in configs[:number]:
        same(tmp_path / "few" / config.run_id, tmp_path / "eight" / config.run_id)


# Of at least 45 checkpoints, for a chunk of steps is at most twice as long as the one before it.
MOMENTS = [1, 2, 7, 11, 16, 19, 23, 30, 38, 44]


def test_a_study_killed_at_ten_moments_ends_with_the_bits_of_one_that_was_not(
    tmp_path, monkeypatch
):
    """Groups go on in other widths: lanes stand at different steps, and ``replicas`` is another."""
    monkeypatch.setattr(kept, "place", lambda: tmp_path / "programs")  # else each start compiles
    base = dataclasses.replace(TINY, num_epochs=2)
    study = tiny(base=base, seed=repeated("seed", range(3)), size=SIZE)
    conductor.conduct(study, "s", tmp_path / "whole", execute.here())
    assert execute.known(cells(study)[-1].config, tmp_path / "whole").status == "done"
    for moment in MOMENTS:
        workdir = tmp_path / str(moment)
        with killed_after_saving(moment, monkeypatch):
            conductor.conduct(study, "s", workdir, execute.here())
        conductor.conduct(study, "s", workdir, execute.here(moment % 4))
        for cell in cells(study):
            run_id = cell.config.run_id
            same(workdir / run_id, tmp_path / "whole" / run_id)


def test_a_run_begun_alone_goes_on_in_a_study_and_one_of_a_study_alone(tmp_path, monkeypatch):
    configs = RADII[:3]
    with killed_after_saving(3, monkeypatch):
        run.train(configs[0], tmp_path, VIEW())
    with killed_after_saving(8, monkeypatch):
        run.train_together(configs[1:], tmp_path, VIEW())
    list(execute.run_cells([configs[0], *RADII[3:]], tmp_path))
    for config in configs[1:]:
        run.train(config, tmp_path, VIEW())
    for config in RADII:
        same(tmp_path / config.run_id, _alone(config, tmp_path))


def test_replicas_that_are_stopped_go_on_together_or_alone_to_the_same_bits(tmp_path):
    """Stopped at one step, two go on as replicas; a third that stood elsewhere goes on alone."""

    asked = []

    class Stops(VIEW):
        def update(self, step, values):
            if step >= 14 and not asked:
                asked.append(step)
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="the same command goes on"):
        run.train_together(RADII[:2], tmp_path / "w", Stops())
    steps = {checkpoint.step(tmp_path / "w" / config.run_id) for config in RADII[:2]}
    assert len(steps) == 1
    assert 0 < steps.pop() < 33
    run.train_together(RADII[:3], tmp_path / "w", VIEW())
    run.train_together(RADII[:2], tmp_path / "whole", VIEW())
    for config in RADII[:2]:
        same(tmp_path / "w" / config.run_id, tmp_path / "whole" / config.run_id)
    same(tmp_path / "w" / RADII[2].run_id, _alone(RADII[2], tmp_path))


def test_streamed_replicas_run_in_turn(tmp_path):
    configs = [dataclasses.replace(config, cache=False) for config in RADII[:2]]
    run.train_together(configs, tmp_path, VIEW())
    for config in configs:
        same(tmp_path / config.run_id, _alone(config, tmp_path))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_study_is_the_same_however_many_replicas_it_runs(tmp_path, number):
    study = tiny()
    conductor.conduct(study, "s", tmp_path / "w", execute.here(number))
    for cell in cells(study):
        same(tmp_path / "w" / cell.config.run_id, _alone(cell.config, tmp_path))


def test_small_networks_are_replicated_and_large_ones_and_convolutions_are_not():
    lanes = lambda **knobs: compiled.Compiled(Config(**knobs)).lanes
    assert lanes(num_neurons=(16, 8)) == lanes(optimizer="looksam") == compiled.LANES
    assert lanes(num_neurons=(1200, 400)) == 1
    assert lanes(num_neurons=(2000, 2000), batch_size=1) == 1  # so many states are too large
    assert lanes(num_neurons=(16, 8), cache=False) == 1
    assert lanes(model="ResNet18", num_filters=2, batch_size=4, dataset="mnist") == 1


def test_random_keys_in_a_state_have_their_places_too():
    machine = compiled.Compiled(TINY).of(2)
    trees = [{"key": jax.random.key(seed), "n": np.float32(seed)} for seed in range(2)]
    rows = [machine.row(machine.stack(trees), i) for i in range(2)]
    data = lambda tree: [jax.random.key_data(tree["key"]).tolist(), float(tree["n"])]
    assert list(map(data, rows)) == list(map(data, trees))


def _alone(config, tmp_path):
    run.train(config, tmp_path / "alone", VIEW())
    return tmp_path / "alone" / config.run_id


def test_this_file_compares_numbers_and_not_nothing(whole):
    assert np.isfinite([row["train_loss"] for row in rows(whole)]).all()
