"""Replicas under ``vmap``: each is the run alone, and ends for reasons of its own."""

import dataclasses
import signal
import time

import jax
import numpy as np
import pytest

from runs import TINY, VIEW, rows, same
from samscale.config import Config
from samscale.errors import Diverged, Interrupted
from samscale.study import cells, execute
from samscale.study import conduct as conductor
from samscale.training import checkpoint, compiled, folder, memory, record, replicas, run
from samscale.training.step import Knobs

RADII = [dataclasses.replace(TINY, rho=rho, seed=seed) for seed in (0, 1) for rho in (0.02, 0.2)]


def close(first, second):
    """The same lines to rounding: products of several runs at once may add in another order."""
    for one, two in zip(rows(first), rows(second), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            ties = 0.005 if "accuracy" in name else 1e-5  # equal outputs: either may be the larger
            expected = value if name == "kind" else pytest.approx(value, rel=1e-4, abs=ties)
            assert two[name] == expected, name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "log_every_steps": 7},
        {"sam_groups": 4},
        {"pruner": "snip", "sparsity": 0.5},
        {"dropout": 0.3, "base_optimizer": "adam", "learning_rate": 1e-3},
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
        close(path, tmp_path / "alone" / config.run_id)


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
    assert len({final["memory"] for final in together}) == 1


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
    close(tmp_path / configs[2].run_id, _alone(configs[2], tmp_path))


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
    close(tmp_path / "w" / RADII[2].run_id, _alone(RADII[2], tmp_path))


def test_streamed_replicas_run_in_turn(tmp_path):
    configs = [dataclasses.replace(config, cache=False) for config in RADII[:2]]
    run.train_together(configs, tmp_path, VIEW())
    for config in configs:
        same(tmp_path / config.run_id, _alone(config, tmp_path))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_study_is_the_same_however_many_replicas_it_runs(tmp_path, number, tiny_study):
    conductor.conduct(tiny_study, "s", tmp_path / "w", execute.here(number))
    for cell in cells(tiny_study):
        close(tmp_path / "w" / cell.config.run_id, _alone(cell.config, tmp_path))


def test_small_networks_are_replicated_and_large_ones_and_convolutions_are_not(monkeypatch):
    best = lambda wanted=0, **knobs: replicas.best(Config(**knobs), wanted)
    assert best(num_neurons=(16, 8)) == replicas.MOST
    assert best(num_neurons=(1200, 400)) == 1
    assert best(model="ResNet18", num_filters=2, batch_size=4) == 1
    assert best(num_neurons=(1200, 400), wanted=5) == 5
    monkeypatch.setattr(memory, "free", lambda: 0)
    assert best(num_neurons=(16, 8)) == 1


@pytest.mark.parametrize(
    "network",
    [
        {"num_neurons": (16, 8)},
        {"num_neurons": (1200, 400)},
        {"model": "ResNet18", "num_filters": 8, "num_blocks": (1, 1)},
    ],
    ids=["small", "wide", "convolutions"],
)
def test_replicas_fit_into_the_memory_there_is(monkeypatch, network):
    config = Config(optimizer="sam", **network)
    machine, knobs = compiled.Compiled(config), Knobs.of(config)
    window = machine.feed(machine.order(knobs, 0), 0)
    data = sum(a.nbytes for a in jax.tree.leaves((window.examples, window.order)))
    state = machine.init(knobs, window.examples, window.order)
    machine.advance(state, window.examples, window.order, 0, 1, knobs)
    free = 3.5 * (machine.advance.memory - data) / replicas.SHARE
    monkeypatch.setattr(memory, "free", lambda: free)
    assert 1 <= replicas.best(config, wanted=100) <= 3  # more would not have fitted
    monkeypatch.setattr(memory, "free", lambda: 10 * free)
    assert replicas.best(config, wanted=100) >= 5


def test_free_memory_is_known():
    assert 2**20 < memory.free() < 2**50


def _alone(config, tmp_path):
    run.train(config, tmp_path / "alone", VIEW())
    return tmp_path / "alone" / config.run_id


@pytest.fixture
def tiny_study():
    from samscale.study import Study, methods, nuisance, repeated, scientific

    base = dataclasses.replace(TINY, num_epochs=1, checkpoint_seconds=30.0)
    return Study(
        question="?",
        base=base,
        axes=(
            scientific("num_neurons", [(4,), (8,)]),
            methods(base, "sgd", "sam"),
            nuisance("rho", [0.05, 0.1], only=["sam"]),
            repeated("seed", range(2)),
        ),
    )


def test_this_file_compares_numbers_and_not_nothing(whole):
    assert np.isfinite([row["train_loss"] for row in rows(whole)]).all()
