"""Runs on disk: what a folder holds, and what a run does with its knobs."""

import json
import shutil

import jax
import numpy as np
import pytest

from runs import TINY, VIEW, bits, rows, same, saved
from samscale import errors
from samscale.config import Config, from_mapping
from samscale.training import checkpoint, folder, progress, record, run
from samscale.training.compiled import Compiled
from samscale.training.step import Knobs


def test_a_run_folder_holds_config_environment_record_checkpoint_and_done(whole):
    names = {path.name for path in whole.iterdir()} - {".clock", ".lease-1"}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        checkpoint.NAME,
        "done",
    }
    assert folder.config(whole) == TINY.settled()
    assert json.loads((whole / "environment.json").read_text())["versions"]["jax"]


def test_same_config_same_numbers(whole, tmp_path):
    run.train(TINY, tmp_path, VIEW())
    same(tmp_path / TINY.run_id, whole)


def files(path):
    return {p.name: p.stat().st_mtime_ns for p in path.iterdir()}


def test_a_finished_run_says_so_and_returns_what_it_found(whole, capsys):
    before = bits(whole), rows(whole)
    seen = files(whole)
    final = run.train(TINY, whole.parent, progress.Lines())
    assert files(whole) == seen  # not even a lease: it may be on a disk that cannot be written
    assert "done before" in capsys.readouterr().out
    assert final["kind"] == "final"
    assert (bits(whole), rows(whole)) == before


def test_a_last_line_names_the_best_by_validation_and_the_final_test_accuracy(whole, capsys):
    final = rows(whole)[-1]
    epochs = [row for row in rows(whole) if row["kind"] == "epoch"]
    best = max(epochs, key=lambda row: row["validation_accuracy"])
    assert final["best_epoch"] == best["epoch"]
    assert final["test_accuracy_at_best_validation"] == best["test_accuracy"]
    assert final["test_accuracy"] == epochs[-1]["test_accuracy"]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    config = Config(
        num_neurons=(8,), batch_size=100, learning_rate=1e20, checkpoint_seconds=0.0, momentum=0.0
    )
    with pytest.raises(errors.Diverged) as caught:
        run.train(config, tmp_path, VIEW())
    path = tmp_path / config.run_id
    assert "not finite at step" in str(caught.value)
    assert "last finite loss" in str(caught.value)
    assert str(path) in str(caught.value)
    assert record.read(path)[-1]["kind"] == "diverged"
    leaves = [leaf for name, leaf in saved(path).items() if name.startswith("['state'].params")]
    assert leaves
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_a_damaged_checkpoint_is_named(whole, tmp_path):
    path = tmp_path / TINY.run_id
    path.mkdir()
    (path / checkpoint.NAME).write_bytes(bits(whole)[:100])
    with pytest.raises(OSError, match=f"{checkpoint.NAME}: damaged"):
        run.train(TINY, tmp_path, VIEW())


def test_a_damaged_record_is_named(whole, tmp_path):
    path = tmp_path / TINY.run_id
    shutil.copytree(whole, path)
    metrics = path / record.NAME
    content = metrics.read_bytes()
    metrics.write_bytes(content + b"\0\0\n")
    with pytest.raises(OSError, match=rf"{record.NAME}: damaged.*line 5: "):
        run.train(TINY, tmp_path, VIEW())
    metrics.write_bytes(b"")
    with pytest.raises(OSError, match=rf"{record.NAME}: damaged.*missing, though the run is done"):
        run.train(TINY, tmp_path, VIEW())


def test_two_processes_never_train_one_run(tmp_path):
    with (
        folder.opened(TINY, tmp_path),
        pytest.raises(BlockingIOError, match="another process"),
        folder.opened(TINY, tmp_path),
    ):
        pass


def test_beginning_again_moves_what_was_there_aside(whole, tmp_path):
    config = from_mapping({**vars(TINY), "restore_checkpoint": False})
    run.train(config, tmp_path, VIEW())
    path = tmp_path / TINY.run_id
    first = bits(path), rows(path)
    run.train(config, tmp_path, VIEW())
    same(path, whole)
    earlier = path / "earlier-1"
    assert (bits(earlier), rows(earlier)) == first
    assert folder.is_done(earlier)


def test_two_runs_never_share_a_folder_and_none_is_deleted(tmp_path):
    for width in (4, 8):
        config = from_mapping({**vars(TINY), "num_neurons": (width,), "num_epochs": 1})
        run.train(config, tmp_path, VIEW())
    assert len([p for p in tmp_path.iterdir() if folder.is_done(p)]) == 2


def test_streamed_data_give_the_bits_of_resident_data(whole, tmp_path, monkeypatch):
    from samscale.training import feed

    monkeypatch.setattr(feed, "WINDOW_BYTES", 5 * 100 * 70)  # windows of a few batches
    config = from_mapping({**vars(TINY), "cache": False})
    assert config.run_id == TINY.run_id
    run.train(config, tmp_path, VIEW())
    same(tmp_path / TINY.run_id, whole)


def test_a_window_of_streamed_data_is_no_longer_than_an_epoch():
    from samscale.training import feed

    order = np.arange(12).reshape(3, 4)
    window = feed.streamed({"x": np.arange(12)}, 4)(order, 1)
    assert (window.size, window.order.shape) == (2, (3, 4))


def test_num_train_steps_ends_within_an_epoch(tmp_path):
    config = from_mapping({**vars(TINY), "num_train_steps": 17})
    final = run.train(config, tmp_path, VIEW())
    assert final["step"] == 17
    assert final["epoch"] == 2


def test_log_every_steps_writes_means_of_so_many_steps(tmp_path):
    every = from_mapping({**vars(TINY), "num_train_steps": 12, "log_every_steps": 4})
    each = from_mapping({**vars(TINY), "num_train_steps": 12, "log_every_steps": 1})
    run.train(every, tmp_path / "every", VIEW())
    run.train(each, tmp_path / "each", VIEW())
    steps = lambda path: [r for r in rows(path / TINY_12) if r["kind"] == "steps"]
    TINY_12 = every.run_id
    coarse, fine = steps(tmp_path / "every"), steps(tmp_path / "each")
    assert [row["step"] for row in coarse] == [4, 8, 12]
    mean = np.mean([row["train_loss"] for row in fine[:4]])
    np.testing.assert_allclose(coarse[0]["train_loss"], mean, rtol=1e-12)


def test_an_evaluation_sees_every_example_exactly_once_or_so_many_batches(tmp_path):
    from samscale.training import compiled

    machine = compiled.compiled(TINY)
    (stack,) = machine.splits["test"]
    assert stack["weight"].sum() == len(machine.task.test["y"]) == 359
    few = compiled.Compiled(from_mapping({**vars(TINY), "steps_per_eval": 2}))
    (stack,) = few.splits["test"]
    assert stack["weight"].sum() == 200


def test_nothing_compiles_after_the_first_epoch(tmp_path):
    import jax._src.monitoring as monitoring

    compilations, seen = [], []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(event)

    class View(VIEW):
        def update(self, step, values):
            if "test_loss" in values:
                seen.append(len(compilations))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run.train(TINY, tmp_path, View())
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert len(seen) == 3
    assert seen[0] > 0
    assert seen[-1] == seen[0]


def test_sam_keeps_one_copy_of_the_parameters_and_no_maps_of_its_first_pass():
    def memory(optimizer):
        network = {"model": "ResNet18", "num_filters": 8, "num_blocks": (1, 1)}
        config = Config(optimizer=optimizer, batch_size=1024, **network)
        machine, knobs = Compiled(config), Knobs.of(config)
        window = machine.feed(machine.order(knobs, 0), 0)
        state = machine.init(knobs, window.examples, window.order)
        arguments = (state, window.examples, window.order, 0, 1, knobs)
        analysis = machine.advance.jitted.lower(*arguments).compile().memory_analysis()
        return analysis.temp_size_in_bytes, sum(w.nbytes for w in jax.tree.leaves(state.params))

    (sgd, size), (sam, _) = memory("sgd"), memory("sam")
    assert sgd < sam <= sgd + 1.2 * size
